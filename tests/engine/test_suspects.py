"""A record that kills its process is found and buried; bystanders, restarts and rebalances are not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamer.errors import FatalError
from streamer.records import Classification, Encoding, Job, Outcome, TopicPartition
from streamer.worker import InlineWorker
from tests.engine.accounts import check_accounts
from tests.engine.parts import Clock, Crash, Scorer, away
from tests.engine.rig import Rig
from tests.engine.test_failures import filled

KILLER = "killer"


class Fragile(Scorer):
    """Dies of a marked text, on the device or in the tokenizer."""

    tokenizing = False

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        if self.tokenizing and any(KILLER in text for text in texts):
            raise Crash("in the tokenizer")
        return super().encode(texts)

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        if any(KILLER in job.text for job in jobs):
            raise Crash("on the device")
        return super().infer(jobs)


def deaths(rig: Rig) -> int:
    """Run it as often as it takes; how often it died."""
    for count in range(20):
        rig.restart()
        try:
            rig.run()
        except Crash:
            continue
        return count
    raise AssertionError("it dies for ever")


@pytest.mark.parametrize("tokenizing", [False, True])
def test_a_record_that_kills_is_buried_after_three_starts(tokenizing: bool) -> None:
    rig = Rig(max_records=32)
    rig.scorer = Fragile(rig.hook)
    rig.scorer.tokenizing = tokenizing
    for number in range(60):
        rig.send(KILLER if number == 20 else "good", str(number))
    assert deaths(rig) == 3
    assert rig.ids == [str(number) for number in range(60) if number != 20]
    assert rig.reasons == ["kills_the_worker"] and rig.buried() == [(0, 20)]
    assert dict(rig.dead_letters[0].headers)["dlq.attempts"] == b"3"
    assert rig.log.committed == rig.ends


def test_several_that_kill_are_all_found() -> None:
    rig = Rig(max_records=32)
    rig.scorer = Fragile(rig.hook)
    for number in range(40):
        rig.send(KILLER if number in (3, 4, 30) else "good", str(number))
    # The first death is shared; then each needs its own. The third lay in the second window.
    assert deaths(rig) <= 3 * 3
    assert rig.buried() == [(0, 3), (0, 4), (0, 30)]
    assert len(rig.ids) == 37


def test_bystanders_go_one_by_one_and_their_count_is_taken_back() -> None:
    rig = filled(16, max_records=16, max_texts=16)

    def crash(point: str) -> None:
        if point == "infer:inside":
            raise Crash(point)

    rig.on = crash
    with pytest.raises(Crash):
        rig.run()
    rig.on = lambda point: None
    rig.scorer.calls.clear()
    rig.restart()
    rig.run()
    assert rig.scorer.calls == [1] * 16
    assert sum(rig.memory.starts.values()) <= 1, "the newest at most: it is taken back with the next batch"
    check_accounts(rig)
    for number in range(16):
        rig.send("good", f"more{number}")
    rig.scorer.calls.clear()
    rig.restart()
    rig.run()
    assert rig.scorer.calls == [16], "suspicion ends with them"


@pytest.mark.parametrize("how", ["drain", "revoked", "lost"])
def test_nobody_is_suspected_of_leaving(how: str) -> None:
    rig = filled(100, max_records=16, max_texts=16)
    rig.steps(4)
    partition = TopicPartition("texts.in", 0)
    if how == "drain":
        rig.engine.drain()
        rig.restart()
    else:
        rig.source.rebalance(how, [partition])
        rig.steps(1)
        rig.source.rebalance("assigned", [partition])
    rig.scorer.calls.clear()
    rig.run()
    assert 1 not in rig.scorer.calls
    check_accounts(rig, explained=rig.unmarked() | set(rig.scored()) if how == "lost" else ())


@pytest.mark.parametrize("how", ["an error", "the drain's deadline"])
def test_who_leaves_by_its_own_decision_has_not_died(how: str) -> None:
    """Again and again, with the same records in hand: no innocent is buried for it."""
    rig = Rig(max_records=16)
    for number in range(16):
        rig.send("good", str(number))
    if how == "an error":
        rig.on = fails_in_inference
    else:
        Slow.clock, rig.worker = rig.clock, Slow
        rig.restart()
    for _ in range(5):
        if how == "an error":
            with pytest.raises(FatalError):
                rig.run()
            rig.engine.leave()
            rig.engine.close()
        else:
            rig.clock.wait(1.0)
            rig.steps(30)
            rig.engine.drain()
        rig.restart()
    assert rig.memory.starts == {}
    rig.on, rig.worker = lambda point: None, InlineWorker
    rig.restart()
    rig.run()
    assert len(rig.ids) == 16 and rig.reasons == []


def test_a_killer_is_found_though_each_run_begins_with_a_claim_that_fails() -> None:
    rig = Rig(max_records=32)
    rig.scorer = Fragile(rig.hook)
    rig.restart()
    for number in range(20):
        rig.send(KILLER if number == 9 else "good", str(number))
    for _ in range(5):
        rig.on = away("claim:before", 1)
        try:
            rig.run()
            break
        except Crash:
            rig.restart()
    assert rig.buried() == [(0, 9)] and len(rig.ids) == 19


def test_a_suspect_waits_for_redis_without_spinning() -> None:
    rig = filled(16)
    for record in rig.log.records[TopicPartition("texts.in", 0)]:
        rig.memory.claims[str(record.offset)] = TopicPartition("texts.in", 0), record.offset
    rig.on = away("begin:before", 5)
    rig.run()
    assert len(rig.ids) == 16 and rig.scorer.calls == [1] * 16
    check_accounts(rig)


def fails_in_inference(point: str) -> None:
    if point == "infer:inside":
        raise FatalError("fenced")


class Slow(InlineWorker):
    """A device on which every batch takes longer than anybody waits."""

    clock: Clock

    def collect(self, timeout: float) -> list[Outcome]:
        self.clock.wait(timeout)
        return []
