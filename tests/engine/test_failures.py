"""Where each failure goes: halved, retried, dead, or the end of the process."""

from __future__ import annotations

import msgspec
import pytest

from streamer.errors import RecordError
from streamer.records import Encoding
from tests.engine.parts import away
from tests.engine.rig import Rig


def filled(count: int, **options: int) -> Rig:
    rig = Rig(**options)  # type: ignore[arg-type]
    for number in range(count):
        rig.send("good", str(number))
    return rig


# -- a batch that fails ----------------------------------------------------------------------------------


def test_one_bad_record_in_64_is_found_in_13_calls() -> None:
    rig = Rig(max_records=64, max_texts=64)
    for number in range(64):
        rig.send("poison" if number == 37 else "good", str(number))
    rig.run()
    assert len(rig.scorer.calls) == 13
    assert rig.ids == [str(number) for number in range(64) if number != 37]
    assert rig.reasons == ["infer_failed"] and rig.buried() == [(0, 37)]
    assert rig.log.committed == rig.ends


def test_several_bad_records_die_and_only_they() -> None:
    rig = Rig(max_records=64, max_texts=64)
    bad = {0, 1, 17, 40, 63}
    for number in range(64):
        rig.send("poison" if number in bad else "good", str(number))
    rig.run()
    assert rig.buried() == [(0, number) for number in sorted(bad)]
    assert rig.ids == [str(number) for number in range(64) if number not in bad]
    assert len(rig.scorer.calls) <= 1 + 2 * 6 * len(bad)


def test_a_batch_of_nothing_but_bad_records_ends() -> None:
    rig = Rig(max_records=16, max_texts=16)
    for _ in range(16):
        rig.send("poison")
    rig.run()
    assert len(rig.dead_letters) == 16 and not rig.results
    assert len(rig.scorer.calls) == 31, "a binary tree over 16 leaves"
    assert rig.log.committed == rig.ends


def test_dead_letters_say_how_often_they_were_tried() -> None:
    rig = Rig(max_texts=8)
    for number in range(8):
        rig.send("poison" if number == 0 else "good")
    rig.run()
    assert dict(rig.dead_letters[0].headers)["dlq.attempts"] == b"4"


def test_the_message_of_somebody_elses_error_is_not_kept() -> None:
    rig = Rig()
    rig.send("poison secret")
    rig.on = lambda point: None
    rig.run()
    assert dict(rig.dead_letters[0].headers)["dlq.message"] == b"ValueError in infer"
    assert dict(rig.dead_letters[0].headers)["dlq.error"] == b"ValueError"


def test_out_of_memory_halves_the_batch_and_shrinks_the_budget() -> None:
    rig = filled(64, max_records=64, max_texts=64)
    rig.scorer.memory = 20
    rig.run()
    assert rig.scorer.calls[:3] == [64, 32, 16]
    assert rig.ids == [str(number) for number in range(64)] and not rig.dead_letters
    rig.scorer.calls.clear()
    for number in range(64):
        rig.send("good", f"more{number}")
    rig.engine.close()
    budget = rig.budget.tokens
    assert budget <= 20, "remembered"


def test_a_text_that_never_fits_is_dead_for_that_reason() -> None:
    rig = filled(3)
    rig.send("good " * 50)
    rig.scorer.memory = 20
    rig.run()
    assert rig.reasons == ["out_of_memory"] and len(rig.results) == 3


def test_a_text_that_is_too_long_is_cut_or_dead_and_its_result_says_so() -> None:
    rig = filled(3)
    for name in ("cut", "refused"):
        rig.send(name, name)
    encode = rig.scorer.encode

    def limited(texts: list[str]) -> list[Encoding | RecordError]:
        plain = zip(texts, encode(texts), strict=True)
        return [
            RecordError("too_long", "") if text == "refused" else found._replace(truncated=text == "cut")
            for text, found in plain
        ]

    rig.scorer.encode = limited  # type: ignore[method-assign, assignment]
    rig.run()
    assert rig.ids == ["0", "1", "2", "cut"] and rig.reasons == ["too_long"]
    results = [msgspec.json.decode(envelope.value or b"") for envelope in rig.results]
    assert [result.get("truncated") for result in results] == [None, None, None, True]


def test_a_tokenizer_that_chokes_on_one_text_loses_only_that() -> None:
    rig = filled(5)
    rig.send("odd", "odd")
    encode = rig.scorer.encode

    def choking(texts: list[str]) -> list[Encoding]:
        if "odd" in texts:
            raise ValueError("odd")
        return encode(texts)

    rig.scorer.encode = choking  # type: ignore[method-assign, assignment]
    rig.run()
    assert rig.ids == ["0", "1", "2", "3", "4"] and rig.reasons == ["tokenize_failed"]


# -- what is outside and away for a while: the same work again, and nothing committed meanwhile ----------


@pytest.mark.parametrize(
    "point", ["claim:before", "claim:inside", "infer:before", "infer:inside", "mark:before"]
)
def test_what_is_away_is_waited_for(point: str) -> None:
    rig = filled(40)
    rig.on = away(point, 6)
    rig.run()
    assert rig.ids == [str(number) for number in range(40)], "each once, in order"
    assert not rig.dead_letters
    assert rig.engine.metrics.retries[point.partition(":")[0]] == 6
    assert rig.log.committed == rig.ends


def test_a_lost_reply_to_a_claim_loses_nothing() -> None:
    rig = filled(10)
    rig.on = away("claim:after", 3)
    rig.run()
    assert len(rig.ids) == 10 and not rig.engine.metrics.skipped


@pytest.mark.parametrize("point", ["claim:before", "mark:before"])
def test_nothing_is_committed_and_polling_goes_on_while_redis_is_away(point: str) -> None:
    rig = filled(10)
    rig.on = away(point, 10**9)
    rig.steps(50)
    before = rig.polls
    rig.steps(50)
    assert rig.polls > before
    assert rig.committed == {}


@pytest.mark.parametrize("point", ["claim:before", "infer:before", "mark:before"])
def test_waiting_for_what_is_away_does_not_spin(point: str) -> None:
    rig = filled(10)
    rig.on = away(point, 10**9)
    while rig.clock.now < 1.0:
        rig.engine.step()
    started, polls = rig.clock.now, rig.polls
    while rig.clock.now < started + 10.0:
        rig.engine.step()
    assert rig.polls - polls < 4000, "at least some 2.5 ms a step"


def test_a_dead_letter_gives_its_claim_back_even_if_redis_is_away_at_first() -> None:
    rig = Rig()
    rig.send("refused", "a")
    rig.on = away("give_back:before", 3)
    rig.run()
    assert rig.memory.held == set() and rig.log.committed == rig.ends


def test_an_index_that_is_away_holds_nothing_up() -> None:
    rig = Rig()
    rig.send("refused")
    rig.on = away("index:before", 1)
    rig.run()
    assert rig.reasons == ["refused"] and rig.log.committed == rig.ends
    assert rig.engine.metrics.retries["index"] == 1


def test_a_sink_that_does_not_acknowledge_holds_the_commit_and_the_marks() -> None:
    rig = filled(10)
    rig.sink.hold = True
    rig.steps(100)
    assert rig.committed == {}
    assert not any(rig.memory.written.values())
    rig.sink.hold = False
    rig.run()
    assert rig.log.committed == rig.ends == rig.memory.written


def test_marks_come_after_publication_and_before_the_commit() -> None:
    rig = filled(4)
    marked: list[str] = []

    def look(point: str) -> None:
        if point == "mark:before" and any(release.jobs for release in rig.engine._outbox._releases):
            assert len(rig.results) == 4
            marked.append(point)
        elif point == "commit:before" and any(rig.source._uncommitted.values()):
            assert marked and rig.memory.written == rig.source._uncommitted

    rig.on = look
    rig.run()
    assert marked and rig.log.committed == rig.ends
