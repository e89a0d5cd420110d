"""What fails for a reason that may pass: tried in place until its deadline, then as the policy has it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from streamer.delays import RetryPolicy
from streamer.errors import TransientError
from streamer.limits import Limits
from streamer.records import Classification
from tests.engine.parts import Crash, PromptSink, Scorer, away
from tests.engine.rig import Rig, headers
from tests.engine.test_crashes import crash_at
from tests.engine.test_transactions import POINTS, AtomicSink

DELAY = RetryPolicy("delay", 0.0, (60, 600))


def rig_with(policy: RetryPolicy, *, sink: type[PromptSink] = PromptSink) -> Rig:
    return Rig(partitions=2, sink=sink, max_texts=4, max_records=8, limits=Limits(retries=policy))


def busy(rig: Rig, times: int = 10**9) -> Counter[str]:
    """From now on the model has no time for texts that say so, so often for each; counts the tries."""
    tries: Counter[str] = Counter()

    def score(text: str) -> Classification | Exception:
        if "busy" in text and tries[text] < times:
            tries[text] += 1
            return TransientError("429 Too Many Requests")
        return Scorer.score(text)

    rig.scorer.score = score  # type: ignore[method-assign]
    return tries


def settle(rig: Rig, rounds: int = 5) -> None:
    """Until nothing comes back any more."""
    for _ in range(rounds):
        rig.run()
        rig.come_back()
        rig.restart()
    rig.run()


# -- in place --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["wait", "dead_letter"])
def test_what_passes_before_the_deadline_is_a_result(policy: Any) -> None:
    rig = rig_with(RetryPolicy(policy, deadline=60.0))
    rig.on = away("infer:before", 8)
    for number in range(20):
        rig.send("good", str(number))
    rig.run()
    assert rig.ids == [str(number) for number in range(20)] and not rig.dead_letters


def test_a_batch_that_fails_until_its_deadline_dies_with_the_number_of_its_tries() -> None:
    rig = rig_with(RetryPolicy("dead_letter", deadline=20.0))
    rig.on = away("infer:before", 10**9)
    for number in range(4):
        rig.send("good", str(number))
    rig.run()
    assert rig.reasons == ["unavailable"] * 4 and not rig.results
    tries = {headers(letter)["dlq.attempts"] for letter in rig.dead_letters}
    # The backoff doubles from 0.05 to 5 s, and takes between half and all of each.
    assert len(tries) == 1 and 8 <= int(tries.pop()) <= 20
    assert len(rig.scorer.calls) == 0 and rig.clock.now > 20.0
    assert headers(rig.dead_letters[0])["dlq.message"] == "away"


def test_the_deadline_is_of_the_record_and_its_neighbours_go_out() -> None:
    rig = rig_with(RetryPolicy("dead_letter", deadline=3.0))
    tries = busy(rig)
    for number in range(12):
        rig.send("busy" if number == 5 else "good", str(number))
    rig.run()
    assert rig.ids == [str(number) for number in range(12) if number != 5]
    assert rig.reasons == ["unavailable"]
    assert int(headers(rig.dead_letters[0])["dlq.attempts"]) == tries["busy"] > 3


def test_one_record_that_is_not_taken_holds_its_partition_and_nobody_else() -> None:
    rig = Rig(partitions=2, max_texts=1, max_records=8, limits=Limits(retries=RetryPolicy("wait")))
    tries = busy(rig)
    rig.send("busy", "first")
    for number in range(100):
        rig.send("good", f"behind-{number}", 0)
        rig.send("good", f"beside-{number}", 1)
    while rig.clock.now < 60.0:
        rig.engine.step()
    assert rig.ids == [f"beside-{number}" for number in range(100)]
    assert len(rig.scorer.calls) - tries["busy"] == 200, "those behind it are done, and wait for it to go out"
    assert 12 + 60 / 5 - 7 <= tries["busy"] <= 12 + 60 / 2.5, "with its own backoff, whoever else is answered"
    last = max(json.loads(result.value or b"")["processed_at"] for result in rig.results)
    assert last < 10_000, "ms: nobody else has waited for it"
    tries.clear()
    busy(rig, times=0)
    rig.run()
    assert rig.ids[100:] == ["first"] + [f"behind-{number}" for number in range(100)]


def test_every_try_counts_once_whatever_came_of_it() -> None:
    """Two of the whole batch, two of the record alone, and one that halves it: the fifth is the last."""
    rig = rig_with(RetryPolicy("wait"))
    busy(rig, times=2)
    rig.on = away("infer:before", 2)
    rig.send("busy poison")
    scored = rig.scorer.infer
    tried = 0

    def infer(jobs: Any) -> Any:
        nonlocal tried
        rig.hook("infer:before")
        tried += 1
        return [rig.scorer.score(job.text) for job in jobs] if tried <= 2 else scored(jobs)

    rig.scorer.infer = infer  # type: ignore[method-assign]
    rig.run()
    assert rig.reasons == ["infer_failed"]
    assert headers(rig.dead_letters[0])["dlq.attempts"] == "5"


def test_in_an_outage_the_backoff_is_not_begun_anew_by_a_record_that_is_given_up() -> None:
    rig = rig_with(RetryPolicy("dead_letter", deadline=0.0))
    rig.on = away("infer:before", 10**9)
    for number in range(80):
        rig.send("good", str(number))
    while rig.clock.now < 30.0:
        rig.engine.step()
    assert len(rig.dead_letters) <= 4 * (8 + 30 / 2.5), "a batch of 4 for each step of the backoff"


# -- delayed ---------------------------------------------------------------------------------------------


def test_a_delayed_record_comes_back_level_after_level_and_dies_after_the_last() -> None:
    rig = rig_with(DELAY)
    busy(rig)
    rig.log.append(b'{"id": "a", "text": "busy"}', key=b"k", timestamp=77, headers=[("traceparent", b"00-1")])
    rig.send("good", "b")
    started = rig.clock.now
    settle(rig)
    first, second = map(headers, rig.delayed)
    assert [first["retry.level"], second["retry.level"]] == ["1", "2"]
    assert [first["retry.attempts"], second["retry.attempts"]] == ["1", "2"]
    assert int(first["retry.due"]) - int(first["retry.failed_at"]) == 60_000
    assert int(second["retry.due"]) - int(second["retry.failed_at"]) == 600_000
    assert [first["retry.offset"], second["retry.offset"]] == ["0", "2"], "where it was read"
    for found in (first, second):
        assert (found["retry.origin"], found["retry.timestamp"]) == ("texts.in:0:0", "77"), "and first"
        assert found["retry.reason"] == "unavailable" and found["retry.stage"] == "infer"
    (letter,) = rig.dead_letters
    assert (letter.key, letter.value) == (b"k", b'{"id": "a", "text": "busy"}')
    found = headers(letter)
    assert (found["dlq.attempts"], found["dlq.offset"]) == ("3", "3")
    assert found["retry.origin"] == "texts.in:0:0"
    assert found["traceparent"] == "00-1"
    assert rig.ids == ["b"] and rig.memory.held == {"b"}
    assert rig.clock.now - started > 660.0


def test_a_delayed_record_gives_its_claim_back_and_passes_deduplication() -> None:
    rig = rig_with(DELAY)
    busy(rig, times=1)
    rig.send("busy", "a")
    rig.send("busy too")  # its id is its coordinate, and stays so
    rig.run()
    assert rig.memory.held == set() and len(rig.delayed) == 2 and not rig.results
    assert rig.engine.metrics.delayed == 2 and rig.log.committed == rig.ends
    rig.restart()
    settle(rig)
    assert sorted(rig.ids) == ["a", "texts.in:0:1"] and not rig.dead_letters
    assert [headers(one)["retry.origin"] for one in rig.results] == ["texts.in:0:0", "texts.in:0:1"]


def test_an_id_that_another_record_brings_meanwhile_is_in_the_results_once() -> None:
    rig = rig_with(DELAY)
    busy(rig)
    rig.send("busy", "a")
    rig.run()
    rig.send("good", "a")
    rig.restart()
    settle(rig)
    assert rig.ids == ["a"] and not rig.dead_letters and len(rig.delayed) == 1


@pytest.mark.parametrize(
    ("forged", "level"),
    [
        ([("retry.level", b"2")], None),
        ([("retry.level", b"99")], None),
        ([("retry.level", b"-1")], "1"),
        ([("retry.level", b"\xff")], "1"),
        ([("retry.level", None)], "1"),
        ([("retry.level", b"9" * 5000)], "1"),
        ([("retry.attempts", b"50"), ("retry.origin", b"forged")], "1"),
    ],
)
def test_a_forged_past_costs_tries_and_nothing_else(forged: Any, level: str | None) -> None:
    rig = rig_with(DELAY)
    busy(rig)
    rig.log.append(b'{"text": "busy"}', headers=forged)
    rig.run()
    if level is None:
        assert rig.reasons == ["unavailable"] and not rig.delayed
    else:
        (found,) = map(headers, rig.delayed)
        assert (found["retry.level"], found["retry.attempts"]) == (level, "1")
        assert found["retry.origin"] == "texts.in:0:0"


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_exactly_once_a_crash_repeats_no_delay_and_loses_none(point: str, time: int) -> None:
    rig = rig_with(DELAY, sink=AtomicSink)
    busy(rig, times=2)
    for number in range(24):
        rig.send(f"busy {number}" if number % 3 == 0 else "good", str(number), number % 2)
    rig.on = crash_at(point, time)
    with pytest.raises(Crash):
        rig.run()
    rig.on = lambda at: None
    rig.restart()
    settle(rig)
    assert sorted(rig.ids, key=int) == [str(number) for number in range(24)]
    assert Counter(rig.ids).most_common(1)[0][1] == 1 and not rig.dead_letters
    places = Counter(
        (headers(one)["retry.offset"], headers(one)["retry.level"], one.value) for one in rig.delayed
    )
    assert set(places.values()) == {1}
