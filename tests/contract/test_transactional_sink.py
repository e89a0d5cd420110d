"""What a transaction promises, and what becomes of one that the broker, or another worker, ends."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streamer.errors import FatalError
from streamer.ledger import Lane
from streamer.records import DeadLetter, Result, Skip, TopicPartition
from tests.contract.jobs import dead, job, release, scored
from tests.contract.test_sink import INPUT, acknowledge
from tests.contract.transactional_world import LONG, World, poll_until


def test_results_dead_letters_and_offsets_are_seen_together_or_not_at_all(world: World) -> None:
    sink = world.sink(interval=LONG)
    first = release([scored(job(0)), dead(job(1))])
    sink.publish(first)
    acknowledge(sink, first)
    assert first.committed
    second = release([scored(job(2)), dead(job(3))])
    sink.publish(second)
    before = world.end("read_uncommitted")
    poll_until(sink, lambda: world.end("read_uncommitted") > before, "the second is written")
    assert (world.ids(1), world.buried(1), world.committed()) == (["0-0"], [b"value 1"], 2)
    assert second.unacknowledged and not second.committed
    world.later = LONG
    acknowledge(sink, second)
    assert (world.ids(2), world.committed()) == (["0-0", "0-2"], 4)
    assert world.buried(2) == [b"value 1", b"value 3"]


def test_releases_that_come_in_the_interval_share_a_transaction(world: World) -> None:
    sink = world.sink(interval=0.3)
    releases = [release([scored(job(offset))]) for offset in range(40)]
    for one in releases:
        sink.publish(one)
        sink.poll(0.01)
    acknowledge(sink, *releases)
    assert world.ids(40) == [f"0-{number}" for number in range(40)]
    # What is no result is a marker, one a transaction.
    assert world.end("read_committed") - 40 <= 5


def test_closing_aborts_what_is_open_and_nobody_waits_for_it(world: World) -> None:
    sink = world.sink(interval=LONG)
    first, second = release([scored(job(0))]), release([scored(job(1))])
    sink.publish(first)
    acknowledge(sink, first)
    sink.publish(second)
    before = world.end("read_uncommitted")
    poll_until(sink, lambda: world.end("read_uncommitted") > before, "the second is written")
    assert world.end("read_committed") == before
    sink.close()
    assert world.end("read_committed") == world.end("read_uncommitted")
    assert (world.ids(1), world.committed()) == (["0-0"], 1)
    assert second.unacknowledged


def test_a_partition_that_goes_is_taken_out_of_the_open_transaction(world: World) -> None:
    sink = world.sink(interval=LONG)
    gone, kept = Lane(INPUT), Lane(TopicPartition(INPUT.topic, 1))
    first = release([scored(job(0, lane=gone))])
    sink.publish(first)
    acknowledge(sink, first)
    lost, mine = scored(job(1, lane=gone)), scored(job(0, 1, lane=kept))
    second = release([lost, mine])
    sink.publish(second)
    before = world.end("read_uncommitted")
    poll_until(sink, lambda: world.end("read_uncommitted") > before, "the second is written")
    gone.closed = True
    world.later = LONG
    acknowledge(sink, second)
    assert world.ids(2) == ["0-0", "1-0"]
    assert world.committed() == 1, "the next owner redoes it"
    assert isinstance(lost.settled, Skip) and isinstance(mine.settled, Result)


def test_what_a_missing_topic_holds_up_is_delivered_in_order_once_it_is_there(world: World) -> None:
    world.dead_letters = f"{world.results}-dlq"
    sink = world.sink()
    releases = [release([scored(job(n)), dead(job(n + 1))]) for n in range(0, 20, 2)]
    for one in releases:
        sink.publish(one)
    poll_until(sink, lambda: sink._backoff.failures > 0, "it was refused")
    assert all(one.unacknowledged for one in releases)
    admin = AdminClient({"bootstrap.servers": world.server.bootstrap_servers})
    admin.create_topics([NewTopic(world.dead_letters, 1, 1)])[world.dead_letters].result(timeout=30)
    acknowledge(sink, *releases)
    assert world.ids(10) == [f"0-{n}" for n in range(0, 20, 2)]
    assert world.buried(10) == [b"value %d" % n for n in range(1, 20, 2)]
    assert world.committed() == 20


def test_a_result_that_the_topic_does_not_take_becomes_a_dead_letter(world: World) -> None:
    world.results = world.make_topic("out", 1, {"max.message.bytes": "5000"})
    sink = world.sink()
    jobs = [scored(job(0)), scored(job(1), size=20_000), scored(job(2))]
    one = release(jobs)
    sink.publish(one)
    poll_until(sink, lambda: bool(sink.refused), "it was refused")
    assert sink.refused == [jobs[1]] and sink._transaction is not None, "somebody has to see it first"
    acknowledge(sink, one)
    assert (world.ids(2), world.buried(1)) == (["0-0", "0-2"], [b"value 1"])
    assert [type(one.settled) for one in jobs] == [Result, DeadLetter, Result]


def test_a_transaction_that_the_broker_gives_up_is_written_again(world: World) -> None:
    sink = world.sink(interval=LONG, **{"transaction.timeout.ms": 1500})
    first, second = release([scored(job(0))]), release([scored(job(1)), dead(job(2))])
    sink.publish(first)
    acknowledge(sink, first)
    sink.publish(second)
    before = world.end("read_uncommitted")
    poll_until(sink, lambda: world.end("read_uncommitted") > before, "the second is written")
    deadline = monotonic() + 30
    while world.end("read_committed") < world.end("read_uncommitted"):  # the worker hangs; the broker aborts
        assert monotonic() < deadline
        sleep(0.1)
    world.later = LONG
    acknowledge(sink, second)
    assert (world.ids(2), world.buried(1), world.committed()) == (["0-0", "0-1"], [b"value 2"], 3)
    third = release([scored(job(3))])
    sink.publish(third)
    world.later = 2 * LONG
    acknowledge(sink, third)
    assert world.committed() == 4


def test_of_two_with_one_id_the_elder_ends(world: World) -> None:
    elder = world.sink()
    first = release([scored(job(0))])
    elder.publish(first)
    acknowledge(elder, first)
    younger = world.sink()
    second = release([scored(job(1))])
    younger.publish(second)
    acknowledge(younger, second)
    lost = release([scored(job(1))])
    elder.publish(lost)
    with pytest.raises(FatalError, match=r"kafka\.transactional_id of its own"):
        poll_until(elder, lambda: False, "it is fenced")
    assert lost.unacknowledged and world.ids(2) == ["0-0", "0-1"]


def test_who_is_no_member_commits_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = world.sink()
    one = release([scored(job(0))])
    with monkeypatch.context() as patched:
        patched.setattr(world.group, "membership", lambda: None)
        sink.publish(one)
        poll_until(sink, lambda: sink._backoff.failures > 1, "it was aborted, twice")
        assert world.ids(0) == [] and world.committed() == 0
    acknowledge(sink, one)
    assert (world.ids(1), world.committed()) == (["0-0"], 1)


class Muddled:
    """A producer whose abort is refused: librdkafka's own, when it overtakes what began the transaction."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def abort_transaction(self, timeout: float) -> None:
        raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE, "nothing to abort", fatal=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def test_an_abort_that_comes_too_early_costs_a_producer_and_no_more(world: World) -> None:
    sink = world.sink(interval=LONG)
    gone, kept = Lane(INPUT), Lane(TopicPartition(INPUT.topic, 1))
    first = release([scored(job(0, lane=gone))])
    sink.publish(first)
    acknowledge(sink, first)
    sink._writer.producer = Muddled(sink._writer.producer)  # type: ignore[assignment]
    second = release([scored(job(1, lane=gone)), scored(job(0, 1, lane=kept))])
    sink.publish(second)
    sink.poll(0)
    gone.closed = True
    world.later = LONG
    acknowledge(sink, second)
    assert world.ids(2) == ["0-0", "1-0"] and world.committed() == 1
