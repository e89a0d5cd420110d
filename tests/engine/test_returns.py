"""A partition goes while its results are under way, and comes back to the same process, or does not."""

from __future__ import annotations

from random import Random

import pytest

from streamer.errors import DeadLetterLimit, TransientError
from streamer.limits import Limits
from streamer.records import TopicPartition
from tests.engine.accounts import check_accounts
from tests.engine.parts import LateSink, PromptSink
from tests.engine.rig import Rig

FIRST = TopicPartition("texts.in", 0)
IDS = [str(number) for number in range(60)]


def under_way(sink: type[PromptSink] = PromptSink) -> Rig:
    """Results that the sink has and does not acknowledge."""
    rig = Rig(sink=sink, max_records=8)
    for id in IDS:
        rig.send("good", id)
    rig.sink.hold = True
    rig.steps(20)
    return rig


def test_what_comes_back_waits_and_is_not_written_again() -> None:
    rig = under_way()
    rig.source.rebalance("lost", [FIRST])
    rig.source.rebalance("assigned", [FIRST])
    before = len(rig.scorer.calls)
    rig.steps(100)
    assert len(rig.scorer.calls) == before and rig.committed == {} and not any(rig.memory.written.values())
    rig.sink.hold = False
    rig.run()
    assert rig.ids == IDS
    check_accounts(rig)


def test_what_has_gone_is_marked_and_not_committed() -> None:
    rig = under_way()
    rig.source.rebalance("lost", [FIRST])
    rig.engine.intake()
    rig.sink.hold = False
    rig.steps(5)
    written = rig.memory.written[FIRST]
    assert written == len(rig.ids) > 0 and rig.committed == {} and rig.ledger.bytes == 0
    rig.source.rebalance("assigned", [FIRST])
    rig.run()
    assert rig.ids == IDS and rig.engine.metrics.skipped["redelivered"] == written


def test_an_older_commit_does_not_undo_a_newer_one() -> None:
    rig = under_way()
    rig.source.rebalance("lost", [FIRST])
    rig.engine.intake()
    rig.log.committed[FIRST] = 50  # by the next owner, who leaves again
    rig.source.rebalance("assigned", [FIRST])
    rig.engine.intake()
    rig.sink.hold = False
    rig.steps(5)
    assert rig.log.committed[FIRST] >= 50


def test_what_the_sink_drops_is_not_marked() -> None:
    rig = under_way(LateSink)
    rig.sink.rate = 5  # type: ignore[attr-defined]
    rig.sink.hold = False
    rig.steps(1)
    rig.source.rebalance("lost", [FIRST])
    rig.steps(5)
    assert rig.memory.written[FIRST] == len(rig.ids) == 5
    rig.source.rebalance("assigned", [FIRST])
    rig.run()
    assert rig.ids == IDS


@pytest.mark.parametrize("sink", [PromptSink, LateSink])
@pytest.mark.parametrize("seed", range(6))
def test_as_long_as_the_process_lives_nothing_is_written_twice(seed: int, sink: type[PromptSink]) -> None:
    random = Random(seed)
    rig = Rig(partitions=3, sink=sink, max_records=16, max_texts=4)
    for number in range(600):
        rig.send("good " * random.randint(1, 9), str(number), random.randrange(3))
    partitions = list(rig.log.records)
    away: set[TopicPartition] = set()

    def fate(point: str) -> None:
        if random.random() < 0.05 and point.partition(":")[0] in ("claim", "infer", "mark"):
            raise TransientError("away")

    rig.on = fate
    moves = 0
    while rig.log.committed != rig.ends:
        rig.sink.hold = random.random() < 0.5
        if issubclass(sink, LateSink):
            rig.sink.rate = random.choice([2, 20])  # type: ignore[attr-defined]
        at = random.choice(partitions)
        if at in away:
            away.remove(at)
            rig.source.rebalance("assigned", [at])
        elif random.random() < 0.3:
            away.add(at)
            moves += 1
            rig.source.rebalance(random.choice(["lost", "revoked"]), [at])
        rig.steps(random.randint(1, 8))
    assert moves > 5, "the seed brings trouble"
    check_accounts(rig)


def test_before_the_dead_letter_limit_ends_it_what_was_written_is_marked_and_committed() -> None:
    rig = Rig(max_records=8, limits=Limits(revoke=0.5, dead_letters_in_a_row=3))
    for id in IDS:
        rig.send("good", id)
    rig.sink.hold = True
    while len(rig.results) < len(IDS):
        rig.engine.step()
    for _ in range(4):
        rig.send("refused")
    wait = rig.clock.wait

    def answered(seconds: float) -> None:
        wait(seconds)
        rig.sink.hold = rig.sink.hold and seconds < 0.005  # the wait at the end is the longest

    rig.sink._wait = answered
    with pytest.raises(DeadLetterLimit):
        rig.engine.run()
    rig.engine.close()
    assert rig.memory.written == {FIRST: 60} == rig.log.committed and not rig.dead_letters
    rig.restart()
    with pytest.raises(DeadLetterLimit):
        rig.engine.run()
    assert rig.ids == IDS
