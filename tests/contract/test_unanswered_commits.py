"""A commit that nobody answers for: what the group's offsets say of it."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.errors import TransientError
from streamer.ledger import Lane
from streamer.records import DeadLetter, Release, Result, Skip, TopicPartition
from tests.contract.jobs import dead, job, release, scored
from tests.contract.test_sink import INPUT, acknowledge
from tests.contract.transactional_world import LONG, World, poll_until


class Unanswered:
    """A producer whose commit is answered with "fenced"; `happens` says whether it went through."""

    def __init__(self, producer: Any, happens: bool) -> None:
        self._producer = producer
        self._happens = happens

    def commit_transaction(self, timeout: float) -> None:
        (self._producer.commit_transaction if self._happens else self._producer.abort_transaction)(10)
        raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


@pytest.mark.parametrize("happens", [True, False])
def test_the_committed_offsets_say_whether_an_unanswered_commit_happened(
    world: World, happens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = world.sink(interval=LONG)
    first, second = release([scored(job(0))]), release([scored(job(1)), dead(job(2))])
    sink.publish(first)
    acknowledge(sink, first)
    sink._writer.producer = Unanswered(sink._writer.producer, happens)  # type: ignore[assignment]
    sink.publish(second)
    sink.poll(0)
    world.later = LONG  # older than the broker's patience
    asked = 0
    look_up = world.group.notes

    def away_at_first(partitions: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise TransientError("away")
        return look_up(partitions)

    monkeypatch.setattr(world.group, "notes", away_at_first)
    poll_until(sink, lambda: asked > 1, "it asks until it is answered")
    world.later = 2 * LONG
    acknowledge(sink, second)
    assert (world.ids(2), world.buried(1), world.committed()) == (["0-0", "0-1"], [b"value 2"], 3)


@pytest.mark.parametrize("happens", [True, False])
def test_an_unanswered_commit_of_a_partition_that_has_gone_is_not_judged_by_one_that_stood_still(
    world: World, happens: bool
) -> None:
    sink = world.sink(interval=LONG)
    still, gone = Lane(TopicPartition(INPUT.topic, 1)), Lane(INPUT)
    first = Release([scored(job(0, 1, lane=still))], {still: 50}, 0)
    sink.publish(first)
    acknowledge(sink, first)
    sink._writer.producer = Unanswered(sink._writer.producer, happens)  # type: ignore[assignment]
    jobs = [scored(job(0, lane=gone)), dead(job(1, lane=gone))]
    second = Release(jobs, {still: 50, gone: 2}, 0)
    sink.publish(second)
    sink.poll(0)
    world.later = LONG  # older than the broker's patience
    poll_until(sink, lambda: sink._undecided, "nobody says whether it was committed")
    gone.closed, still.closed = True, happens
    world.later = 2 * LONG
    acknowledge(sink, second)
    assert second.written == {still.partition: 50, gone.partition: 2 if happens else 0}
    assert [type(one.settled) for one in jobs] == ([Result, DeadLetter] if happens else [Skip, Skip])
    assert (world.ids(2 if happens else 1), world.committed()) == (
        (["1-0", "0-0"], 2) if happens else (["1-0"], 0)
    )
