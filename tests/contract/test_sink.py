"""What the engine relies on in a sink, over memory and over a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any, Protocol

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Position
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streamer.codec import encode
from streamer.ledger import Lane
from streamer.protocols import Sink
from streamer.records import Envelope, Release, Result, TopicPartition
from streamer.sinks.kafka import KafkaSink
from streamer.sinks.memory import MemorySink
from streamer.sinks.topics import Topics
from streamer.sinks.transactional import TransactionalSink
from streamer.sources.group import KafkaGroup
from tests.conftest import MakeTopic
from tests.contract.jobs import dead, job, release, scored, skipped
from tests.servers import KafkaServer

DEADLINE = 30.0
INPUT = TopicPartition("texts.in", 0)


class World(Protocol):
    @property
    def sink(self) -> Sink: ...

    def results(self, count: int) -> list[Envelope]:
        """What is in the results, once that much is there; in the order of each partition."""

    def dead_letters(self, count: int) -> list[Envelope]: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.sink = MemorySink(encode)

    def results(self, count: int) -> list[Envelope]:
        return self.sink.results

    def dead_letters(self, count: int) -> list[Envelope]:
        return self.sink.dead_letters


class Stranger(KafkaGroup):
    """A group without members takes offsets from anyone; who may commit is tested with real workers."""

    def __init__(self, server: KafkaServer, name: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": server.bootstrap_servers, "group.id": name})

    def membership(self) -> Any:
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        self._consumer.close()


def make_input(server: KafkaServer) -> None:
    """The topic that the jobs come from: a broker takes no offsets of one that it does not know."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap_servers})
    try:
        admin.create_topics([NewTopic(INPUT.topic, 5, 1)])[INPUT.topic].result(timeout=DEADLINE)
    except KafkaException as error:
        assert error.args[0].name() == "TOPIC_ALREADY_EXISTS"


class KafkaWorld:
    """Two partitions of results, one of dead letters."""

    def __init__(self, server: KafkaServer, results: str, dead_letters: str, *, transactional: bool) -> None:
        self._server = server
        self.names = results, dead_letters
        topics = Topics(results, dead_letters, {results: 2, dead_letters: 1})
        settings = {"bootstrap.servers": server.bootstrap_servers, "topic.metadata.refresh.interval.ms": 500}
        self.sink: Sink
        if transactional:
            group = Stranger(server, f"group-{results}")
            self.sink = TransactionalSink(
                settings, topics, transactional_id=results, group=group, encode=encode
            )
        else:
            self.sink = KafkaSink(settings, topics, encode=encode)

    def results(self, count: int) -> list[Envelope]:
        return [envelope for _, envelope in read_topic(self._server, self.names[0], 2, count)]

    def dead_letters(self, count: int) -> list[Envelope]:
        return [envelope for _, envelope in read_topic(self._server, self.names[1], 1, count)]


def read_topic(server: KafkaServer, topic: str, partitions: int, count: int) -> list[tuple[int, Envelope]]:
    """All of a topic as somebody else reads it, with the partition of each message; at least `count`."""
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.assign([Position(topic, number, 0) for number in range(partitions)])
    found: list[tuple[int, Envelope]] = []
    ended: set[int | None] = set()
    deadline = monotonic() + DEADLINE
    while len(found) < count or len(ended) < partitions:
        assert monotonic() < deadline, f"{len(found)} messages in {topic}, {count} expected"
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error() is not None:
            ended.add(message.partition())
            continue
        ended.discard(message.partition())
        content = Envelope(message.key(), message.value(), message.headers() or [], message.timestamp()[1])  # type: ignore[arg-type]
        found.append((message.partition() or 0, content))
    consumer.close()
    return found


def acknowledge(sink: Sink, *releases: Release) -> None:
    deadline = monotonic() + DEADLINE
    while any(one.unacknowledged for one in releases):
        assert monotonic() < deadline, [one.unacknowledged for one in releases]
        sink.poll(0.02)
    assert all(one.unacknowledged == 0 for one in releases)


def ids(envelopes: list[Envelope]) -> list[str]:
    return [msgspec.json.decode(envelope.value or b"")["id"] for envelope in envelopes]


@pytest.fixture(params=["memory", "kafka", "transactional"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World
    if request.param == "memory":
        made = MemoryWorld()
    else:
        server: KafkaServer = request.getfixturevalue("kafka")
        make_topic: MakeTopic = request.getfixturevalue("make_topic")
        transactional = request.param == "transactional"
        make_input(server)
        made = KafkaWorld(server, make_topic("out", 2), make_topic("dlq", 1), transactional=transactional)
    yield made
    made.sink.close()


def test_results_are_written_in_order_and_acknowledged(world: World) -> None:
    releases = [release(scored(job(offset)) for offset in range(at, at + 100)) for at in (0, 100, 200)]
    for one in releases:
        world.sink.publish(one)
    acknowledge(world.sink, *releases)
    assert ids(world.results(300)) == [f"0-{offset}" for offset in range(300)]
    assert world.dead_letters(0) == []


def test_a_result_takes_key_and_headers_along(world: World) -> None:
    headers: list[tuple[str, bytes | None]] = [("traceparent", b"00-1"), ("odd", b"\xff"), ("none", None)]
    one = release([scored(job(4, headers=headers))])
    world.sink.publish(one)
    acknowledge(world.sink, one)
    (written,) = world.results(1)
    assert written.key == b"key" and written.headers == headers
    result = msgspec.json.decode(written.value or b"")
    assert result["source"] == {
        "topic": "texts.in",
        "partition": 0,
        "offset": 4,
        "timestamp": 1_700_000_000_004,
    }


def test_a_dead_letter_is_the_record_with_its_time_and_our_headers(world: World) -> None:
    one = release([dead(job(9, headers=[("trace", b"1"), ("dlq.reason", b"forged")]))])
    world.sink.publish(one)
    acknowledge(world.sink, one)
    (written,) = world.dead_letters(1)
    assert (written.key, written.value, written.timestamp) == (b"key", b"value 9", 1_700_000_000_009)
    assert written.headers == [
        ("trace", b"1"),
        ("dlq.reason", b"refused"),
        ("dlq.error", b"RecordError"),
        ("dlq.message", b"why"),
        ("dlq.topic", b"texts.in"),
        ("dlq.partition", b"0"),
        ("dlq.offset", b"9"),
        ("dlq.timestamp", b"1700000000009"),
        ("dlq.attempts", b"2"),
        ("dlq.stage", b"infer"),
        ("dlq.model", b"m"),
        ("dlq.failed_at", b"7"),
    ]
    assert world.results(0) == []


def test_a_release_of_skips_or_of_nothing_is_written_at_once(world: World) -> None:
    skips, nothing = release([skipped(job(0)), skipped(job(1))]), Release([], {Lane(INPUT): 5}, 0)
    for one in (skips, nothing):
        world.sink.publish(one)
    acknowledge(world.sink, skips, nothing)
    assert world.results(0) == [] and world.dead_letters(0) == []


def test_results_and_dead_letters_of_one_release_go_their_ways(world: World) -> None:
    mixed = [scored(job(0)), dead(job(1)), skipped(job(2)), scored(job(3))]
    one = release(mixed)
    world.sink.publish(one)
    acknowledge(world.sink, one)
    assert ids(world.results(2)) == ["0-0", "0-3"]
    assert [envelope.value for envelope in world.dead_letters(1)] == [b"value 1"]


def test_what_is_published_is_accounted_for_even_if_its_partition_goes(world: World) -> None:
    lane = Lane(INPUT)
    gone = scored(job(0, lane=lane))
    one = release([gone])
    world.sink.publish(one)
    lane.closed = True
    acknowledge(world.sink, one)
    # Written, or dropped and known to be: nobody may mark what is not there.
    assert len(world.results(0)) == isinstance(gone.settled, Result)
