"""Exactly once: results, dead letters and offsets in one go. Whatever happens, nothing is written twice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from streamer.limits import Limits
from streamer.records import Envelope, Job, Release, TopicPartition
from streamer.sinks.memory import MemorySink
from tests.engine.accounts import check_accounts
from tests.engine.late import LateClaims
from tests.engine.parts import Claims, Crash, PromptSink
from tests.engine.rig import Rig
from tests.engine.test_crashes import crash_at, mixed
from tests.engine.test_random import Group, fill, misfortune

POINTS = [
    f"{step}:{when}"
    for step in ("claim", "encode", "infer", "publish", "transaction", "mark")
    for when in ("before", "inside", "after")
]


class AtomicSink(PromptSink):
    """All that waits goes at once at a poll, together with its offsets; `aborts` counts polls that fail."""

    aborts = 0

    def __init__(self, encode: Callable[[Job], Envelope], *, wait: Callable[[float], None]) -> None:
        super().__init__(encode, wait=wait)
        self.waiting: list[Release] = []

    def publish(self, release: Release) -> None:
        self.hook("publish:before")
        self.hook("publish:inside")
        release.unacknowledged = 1
        self.waiting.append(release)
        self.hook("publish:after")

    def poll(self, timeout: float) -> None:
        if self.hold or not self.waiting:
            self._wait(timeout)
            return
        self.hook("transaction:before")
        if self.aborts > 0:
            self.aborts -= 1
            return
        for job in (job for release in self.waiting for job in release.jobs):
            if job.lane.closed:
                job.lane.drop(job)
        self.hook("transaction:inside")
        for release in self.waiting:
            MemorySink.publish(self, Release(release.jobs, {}, 0))
            for partition, offset in release.offsets.items():
                self.rig.check_commit(partition, offset)
                self.rig.log.committed[partition] = offset
        self.hook("transaction:after")
        for release in self.waiting:
            release.unacknowledged, release.committed = 0, True
        self.waiting.clear()


@pytest.mark.parametrize("time", [1, 2, 4])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_loses_nothing_and_repeats_nothing(point: str, time: int) -> None:
    rig = mixed(AtomicSink)
    rig.on = crash_at(point, time)
    with pytest.raises(Crash):
        rig.run()
    rig.on = lambda at: None
    rig.restart()
    rig.run()
    check_accounts(rig)


def test_a_crash_in_every_life_repeats_nothing() -> None:
    # One record is alone on the device in each life: to a worker it looks like the one that kills.
    rig = mixed(AtomicSink, Limits(max_attempts=1000))
    crashes = 0
    for point in POINTS * 2:
        rig.on = crash_at(point, 1)
        rig.restart()
        try:
            rig.run()
        except Crash:
            crashes += 1
    rig.on = lambda at: None
    rig.restart()
    rig.run()
    assert crashes >= len(POINTS)
    check_accounts(rig)


def test_an_aborted_transaction_is_written_again_without_another_inference() -> None:
    rig = Rig(sink=AtomicSink)
    rig.sink.aborts = 30  # type: ignore[attr-defined]
    for number in range(40):
        rig.send("good", str(number))
    rig.run()
    assert rig.sink.aborts == 0  # type: ignore[attr-defined]
    assert sum(rig.scorer.calls) == 40
    check_accounts(rig)


def test_marks_come_after_the_transaction() -> None:
    rig = Rig(sink=AtomicSink)
    rig.sink.hold = True
    for number in range(10):
        rig.send("good", str(number))
    rig.steps(50)
    assert not rig.memory.written and not rig.results and rig.committed == {}
    rig.sink.hold = False
    rig.run()
    assert rig.memory.written == rig.ends
    check_accounts(rig)


def test_what_is_revoked_is_committed_before_it_goes_and_what_is_lost_is_not() -> None:
    rig = Rig(partitions=2, sink=AtomicSink)
    first, second = TopicPartition("texts.in", 0), TopicPartition("texts.in", 1)
    for number in range(20):
        rig.send("good", str(number), number % 2)
    rig.sink.hold = True
    rig.steps(50)
    rig.source.rebalance("lost", [first])
    rig.engine.intake()
    rig.sink.hold = False
    rig.source.rebalance("revoked", [second])
    rig.engine.intake()
    assert rig.committed == {second: 10}
    assert {partition for partition, _ in rig.scored()} == {1}
    rig.source.rebalance("assigned", [first, second])
    rig.run()
    check_accounts(rig)


@pytest.mark.parametrize("claims", [Claims, LateClaims])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_nothing_is_written_twice(seed: int, claims: type[Claims]) -> None:
    random = Random(seed)
    group = Group(random, AtomicSink, claims)
    fill(group.members[0], random)

    group.live_through(misfortune(random))
    check_accounts(group.members[0])
