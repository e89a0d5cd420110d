"""The line when nothing goes wrong: what comes out, in what order, and when windows close."""

from __future__ import annotations

import pytest

from tests import corpus
from tests.engine.parts import LateSink, PromptSink
from tests.engine.rig import Rig, headers


@pytest.mark.parametrize("sink", [PromptSink, LateSink])
def test_every_record_becomes_a_result_and_is_committed(sink: type[PromptSink]) -> None:
    rig = Rig(partitions=3, sink=sink)
    for number in range(100):
        rig.send(f"word{number}", f"id{number}", partition=number % 3)
    rig.run()
    assert sorted(rig.ids) == sorted(f"id{number}" for number in range(100))
    assert {result.id: result.label for result in rig.decoded}["id42"] == "word42"
    assert rig.log.committed == rig.ends
    assert rig.engine.metrics.results == rig.engine.metrics.records == 100


def test_results_leave_in_the_order_in_which_records_came() -> None:
    rig = Rig(partitions=2, max_texts=3)
    for number in range(60):  # of mixed lengths: the planner reorders them
        rig.send("word " * (1 + number * 7 % 13), partition=number % 2)
    rig.run()
    for partition in (0, 1):
        assert [offset for p, offset in rig.scored() if p == partition] == list(range(30))


def test_a_dead_letter_keeps_its_place_and_holds_nobody_up() -> None:
    rig = Rig()
    rig.send("good", "a")
    rig.log.append(b"not JSON", key=b"k", headers=[("trace", b"1")], timestamp=77)
    rig.send("good", "c")
    rig.run()
    assert rig.ids == ["a", "c"]
    (dead,) = rig.dead_letters
    assert (dead.key, dead.value, dead.timestamp) == (b"k", b"not JSON", 77)
    assert (headers(dead)["dlq.reason"], headers(dead)["dlq.stage"]) == ("invalid_json", "decode")
    assert headers(dead)["trace"] == "1"
    assert rig.log.committed == rig.ends
    assert rig.index.counts() == {"invalid_json": 1}


def test_what_the_model_refuses_is_dead_and_the_rest_of_its_batch_is_not() -> None:
    rig = Rig()
    for number in range(8):
        rig.send("refused" if number == 3 else "good", str(number))
    rig.run()
    assert rig.ids == ["0", "1", "2", "4", "5", "6", "7"]
    assert rig.reasons == ["refused"]
    assert rig.scorer.calls == [8]


@pytest.mark.parametrize("case", corpus.JSON, ids=lambda case: case.name)
def test_bad_input_goes_where_it_belongs(case: corpus.Case) -> None:
    rig = Rig()
    rig.send("good", "before")
    rig.log.append(case.value, headers=case.headers)
    rig.send("good", "after")
    rig.run()
    assert rig.reasons == ([] if case.reason is None else [case.reason])
    assert len(rig.results) == 2 + (case.reason is None)
    assert rig.log.committed == rig.ends


# -- skips -----------------------------------------------------------------------------------------------


def test_tombstones_are_skipped_counted_and_committed() -> None:
    rig = Rig()
    for value in (None, b'{"text": "good", "id": "a"}', None):
        rig.log.append(value)
    rig.run()
    assert rig.ids == ["a"] and not rig.dead_letters
    assert rig.engine.metrics.skipped == {"tombstone": 2}
    assert rig.log.committed == rig.ends


def test_a_duplicate_is_skipped_in_a_window_across_windows_and_across_partitions() -> None:
    rig = Rig(partitions=2, max_records=4)
    for partition, id in [
        (0, "a"),
        (0, "a"),
        (1, "a"),
        *((0, f"x{n}") for n in range(9)),
        (0, "a"),
        (1, "b"),
    ]:
        rig.send("good", id, partition)
    rig.run()
    assert sorted(rig.ids) == sorted({"a", "b", *(f"x{n}" for n in range(9))})
    assert rig.engine.metrics.skipped == {"same_window": 1, "duplicate": 2}
    assert rig.log.committed == rig.ends


def test_a_record_that_is_read_again_after_its_result_was_marked_is_skipped() -> None:
    rig = Rig()
    rig.send("good", "a")
    rig.run()
    rig.log.committed.clear()  # the commit never arrived
    rig.restart()
    rig.run()
    assert rig.ids == ["a"]
    assert rig.engine.metrics.skipped == {"redelivered": 1}
    assert rig.log.committed == rig.ends


def test_a_dead_letter_gives_its_id_back_so_that_a_corrected_record_passes() -> None:
    rig = Rig()
    rig.send("refused", "a")
    rig.run()
    rig.send("good", "a")
    rig.restart()
    rig.run()
    assert rig.reasons == ["refused"] and rig.ids == ["a"]


# -- when a window closes --------------------------------------------------------------------------------


def test_a_window_closes_on_its_number_of_records() -> None:
    rig = Rig(max_records=4, max_texts=4, max_age=1e9, linger=1e9)
    for _ in range(9):
        rig.send("good")
    rig.steps(20)
    assert rig.scorer.calls == [4, 4] and rig.clock.now < 1e9


def test_a_window_closes_on_its_bytes() -> None:
    rig = Rig(window_bytes=10_000, max_age=1e9, linger=1e9)
    rig.send("good " + "x" * 9_000)
    rig.steps(3)
    assert rig.scorer.calls == []
    rig.send("good " + "x" * 9_000)
    rig.steps(3)
    assert sum(rig.scorer.calls) == 2


def test_an_idle_device_gets_a_window_after_the_linger() -> None:
    rig = Rig(max_age=100.0, linger=0.02)
    rig.send("good")
    rig.steps(1)
    started = rig.clock.now
    while not rig.scorer.calls:
        rig.steps(1)
    assert 0.015 < rig.clock.now - started < 0.03


def test_a_busy_device_gets_a_window_at_its_age() -> None:
    rig = Rig(max_records=100, max_age=0.3, linger=0.001)
    rig.send("good")
    rig.steps(1)
    window = rig.engine._window
    opened = rig.clock.now
    assert window.ready(opened + 0.2, starving=True)
    assert not window.ready(opened + 0.2, starving=False)
    assert window.ready(opened + 0.31, starving=False)


def test_an_idle_engine_waits_instead_of_spinning() -> None:
    rig = Rig()
    rig.steps(100)
    assert rig.clock.waited > 5.0
