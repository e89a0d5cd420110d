"""Bounds: of memory, of the drain, of idleness, and what a partition that goes takes with it."""

from __future__ import annotations

import pytest

from streamer.limits import Limits
from streamer.records import TopicPartition
from tests.engine.parts import HungWorker, LateSink, PromptSink, away
from tests.engine.rig import Rig

FIRST, SECOND = TopicPartition("texts.in", 0), TopicPartition("texts.in", 1)


def flooded(sink: type[PromptSink] = PromptSink) -> Rig:
    rig = Rig(max_bytes=50_000, max_records=8, sink=sink)
    for number in range(400):
        rig.send("good " + "x" * 500, str(number))
    return rig


# -- memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["claim:before", "infer:before", "mark:before"])
def test_past_the_bound_the_source_is_paused_and_polled_all_the_same(point: str) -> None:
    rig = flooded()
    rig.on = away(point, 10**9)
    rig.steps(500)
    read = rig.engine.metrics.records
    assert read * 500 < 50_000 + 8 * 600, "no more was read than the bound and one poll"
    assert rig.pauses == 1
    polls = rig.polls
    rig.steps(100)
    assert rig.polls == polls + 100 and rig.engine.metrics.records == read
    rig.on = lambda at: None
    rig.run()
    assert rig.ids == [str(number) for number in range(400)] and rig.log.committed == rig.ends


@pytest.mark.parametrize("sink", [PromptSink, LateSink])
def test_what_the_sink_has_not_acknowledged_counts_against_the_bound(sink: type[PromptSink]) -> None:
    rig = flooded(sink)
    rig.sink.hold = True
    rig.steps(500)
    assert rig.engine.metrics.records * 500 < 50_000 + 8 * 600
    rig.sink.hold = False
    rig.run()
    assert rig.ids == [str(number) for number in range(400)] and rig.log.committed == rig.ends


def test_at_rest_the_ledger_holds_nothing() -> None:
    rig = flooded()
    rig.send("poison")
    rig.run()
    assert rig.ledger.bytes == 0 and rig.ledger.records == 0


def test_a_partition_that_goes_while_paused_gives_its_memory_back() -> None:
    rig = Rig(partitions=2, max_bytes=20_000, max_records=8)
    for _ in range(100):
        rig.send("good " + "x" * 500, partition=0)
    rig.on = away("claim:before", 10**9)
    rig.steps(100)
    assert rig.pauses == 1
    rig.source.rebalance("lost", [FIRST])
    rig.on = lambda at: None
    rig.send("good", "b", partition=1)
    rig.run()
    assert rig.ids == ["b"] and rig.ledger.bytes == 0


# -- the end ---------------------------------------------------------------------------------------------


def test_a_drain_finishes_what_the_device_holds_and_leaves_the_rest() -> None:
    rig = Rig(max_records=8, max_texts=8)
    for number in range(40):
        rig.send("good", str(number))
    while not rig.scorer.calls:
        rig.engine.step()
    rig.engine.stop()
    rig.engine.run()
    assert rig.ids == [str(number) for number in range(len(rig.ids))] and rig.ids
    assert rig.committed == {FIRST: len(rig.ids)}
    rig.restart()
    rig.run()
    assert rig.ids == [str(number) for number in range(40)]


@pytest.mark.parametrize("sink", [PromptSink, LateSink])
def test_a_drain_with_a_sink_that_does_not_acknowledge_ends_in_time_and_commits_nothing(
    sink: type[PromptSink],
) -> None:
    rig = Rig(sink=sink, limits=Limits(drain=3.0, revoke=0.5, hang=60.0))
    rig.send("refused", "a")
    rig.send("good", "b")
    rig.sink.hold = True
    rig.steps(50)
    started = rig.clock.now
    rig.engine.stop()
    rig.engine.run()
    assert 3.0 <= rig.clock.now - started < 3.6
    assert rig.committed == {}, "what was not acknowledged is not committed"
    rig.restart()
    rig.run()
    assert "b" in rig.ids and "refused" in rig.reasons and rig.log.committed == rig.ends


def test_a_drain_ends_in_time_when_the_device_does_not() -> None:
    rig = Rig(limits=Limits(drain=3.0, revoke=0.5, hang=60.0))
    rig.worker = lambda scorer: HungWorker(scorer, rig.clock)
    rig.restart()
    rig.send("good")
    rig.steps(50)
    started = rig.clock.now
    rig.engine.stop()
    rig.engine.run()
    assert 3.0 <= rig.clock.now - started < 3.6
    assert rig.committed == {} and not rig.results


def test_closing_commits_nothing_that_was_not_written() -> None:
    rig = Rig(sink=LateSink)
    rig.send("good", "a")
    rig.sink.hold = True
    rig.steps(50)
    rig.sink.hold = False
    rig.engine.close()
    assert rig.log.committed.get(FIRST, 0) == len(rig.results)


# -- idleness --------------------------------------------------------------------------------------------


def test_idleness_counts_only_while_partitions_are_assigned() -> None:
    rig = Rig()
    rig.source._events.clear()
    rig.steps(50)
    assert rig.engine.idle_for() == pytest.approx(0.0, abs=0.01)
    rig.source.rebalance("assigned", [FIRST])
    rig.steps(50)
    assert rig.engine.idle_for() > 1.0
    rig.source.rebalance("revoked", [FIRST])
    rig.steps(1)
    assert rig.engine.idle_for() == pytest.approx(0.0, abs=0.01)


def test_idleness_starts_anew_with_each_record() -> None:
    rig = Rig()
    rig.steps(50)
    rig.engine.idle_for()
    rig.send("good")
    rig.steps(1)
    assert rig.engine.idle_for() < 0.2


def test_an_unacknowledged_result_is_not_idle() -> None:
    rig = Rig()
    rig.send("good")
    rig.sink.hold = True
    rig.steps(200)
    assert rig.engine.idle_for() == pytest.approx(0.0, abs=0.01)


# -- partitions that come and go -------------------------------------------------------------------------


def test_a_partition_that_is_revoked_is_finished_and_committed_first() -> None:
    rig = Rig(partitions=2, max_records=8, max_texts=8)
    for number in range(40):
        rig.send("good", f"a{number}", 0)
    while len(rig.scorer.calls) < 2:
        rig.engine.step()
    rig.source.rebalance("revoked", [FIRST])
    rig.steps(5)
    written = len(rig.results)
    assert 0 < written < 40 and rig.log.committed[FIRST] == written, "no record is written and not committed"
    rig.source.rebalance("assigned", [FIRST])
    rig.run()
    assert rig.ids == [f"a{number}" for number in range(40)], "the rest once, in order"


def test_of_a_partition_that_is_lost_nothing_is_committed_any_more() -> None:
    rig = Rig(partitions=2, sink=LateSink)
    for partition in (0, 1):
        rig.send("good", f"p{partition}", partition)
    rig.sink.hold = True
    rig.steps(50)
    rig.source.rebalance("lost", [FIRST])
    rig.steps(2)
    rig.sink.hold = False
    rig.steps(5)
    assert rig.ids == ["p1"] and rig.committed == {SECOND: 1}


def test_work_of_an_earlier_assignment_is_dropped() -> None:
    rig = Rig(max_records=8, max_texts=8)
    for number in range(20):
        rig.send("good", str(number))
    rig.engine.intake()  # in the window now
    rig.source.rebalance("lost", [FIRST])
    rig.source.rebalance("assigned", [FIRST])
    rig.run()
    assert rig.ids == [str(number) for number in range(20)], "each once"
    assert rig.log.committed == rig.ends and rig.ledger.bytes == 0
