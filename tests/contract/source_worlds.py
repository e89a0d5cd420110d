"""A topic and a group that sources can be tried on: in memory, and on a real broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Position

from streamer.protocols import Source
from streamer.records import Record, TopicPartition
from streamer.sources.kafka import KafkaSource
from streamer.sources.memory import MemoryLog, MemorySource

DEADLINE = 30.0
_groups = itertools.count()


class Listener:
    """Notes what a source tells of its partitions; `on` may do something about it."""

    def __init__(self) -> None:
        self.owned: set[TopicPartition] = set()
        self.events: list[str] = []
        self.on: Callable[[str, Sequence[TopicPartition]], None] = lambda event, partitions: None

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("assigned", partitions)
        self.owned.update(partitions)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("revoked", partitions)
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("lost", partitions)
        self.owned.difference_update(partitions)

    def _note(self, event: str, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(event)
        self.on(event, partitions)


class World(Protocol):
    topic: str

    def append(self, value: bytes | None, partition: int = 0, **rest: Any) -> None: ...

    def member(self) -> tuple[Source, Listener]:
        """A new member of the group."""

    def committed(self) -> dict[int, int]: ...

    def take_one_away(self, source: Source, listener: Listener) -> TopicPartition:
        """Make another member join, until one partition has gone to it; returns that."""

    def close(self) -> None: ...


class MemoryWorld:
    topic = "texts.in"

    def __init__(self, partitions: int) -> None:
        self.log = MemoryLog(self.topic, partitions)

    def append(self, value: bytes | None, partition: int = 0, **rest: Any) -> None:
        self.log.append(value, partition=partition, **rest)

    def member(self) -> tuple[Source, Listener]:
        source, listener = MemorySource(self.log), Listener()
        source.subscribe(listener)
        return source, listener

    def committed(self) -> dict[int, int]:
        return {partition.partition: offset for partition, offset in self.log.committed.items()}

    def take_one_away(self, source: Source, listener: Listener) -> TopicPartition:
        assert isinstance(source, MemorySource)
        gone = max(listener.owned)
        source.rebalance("revoked", [gone])
        source.poll(1, 0.0)
        return gone

    def close(self) -> None:
        """Nothing is open."""


class KafkaWorld:
    def __init__(self, bootstrap_servers: str, topic: str, partitions: int, protocol: str) -> None:
        self.topic = topic
        self._partitions = partitions
        self._broker = {"bootstrap.servers": bootstrap_servers}
        self._group = f"group-{topic}-{next(_groups)}"
        self._settings: dict[str, Any] = {**self._broker, "group.id": self._group, "fetch.wait.max.ms": 20}
        if protocol == "consumer":
            self._settings["group.protocol"] = "consumer"
        else:
            self._settings |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 200}
        self._producer = Producer({**self._broker, "linger.ms": 0})
        self._open: list[KafkaSource] = []

    def append(self, value: bytes | None, partition: int = 0, **rest: Any) -> None:
        self._producer.produce(self.topic, value, partition=partition, **rest)
        assert self._producer.flush(DEADLINE) == 0

    def member(self) -> tuple[Source, Listener]:
        source, listener = KafkaSource(self.topic, self._settings), Listener()
        source.subscribe(listener)
        self._open.append(source)
        return source, listener

    def committed(self) -> dict[int, int]:
        asking = Consumer({**self._broker, "group.id": self._group})
        everywhere = [Position(self.topic, number) for number in range(self._partitions)]
        answers = asking.committed(everywhere, timeout=DEADLINE)
        asking.close()
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def take_one_away(self, source: Source, listener: Listener) -> TopicPartition:
        before = set(listener.owned)
        other, others = self.member()
        until(lambda: bool(others.owned) and len(listener.owned) < len(before), source, other)
        return next(iter(before - listener.owned))

    def close(self) -> None:
        for source in self._open:
            source.close()


def until(
    done: Callable[[], bool], *sources: Source, into: list[Record] | None = None, most: int = 100
) -> None:
    """Poll the sources in turn until it is done; their records are added to `into`."""
    deadline = monotonic() + DEADLINE
    while not done():
        assert monotonic() < deadline, "it did not happen in time"
        for source in sources:
            records = source.poll(most, 0.02)
            if into is not None:
                into += records


def read(source: Source, count: int, most: int = 100) -> list[Record]:
    """Poll until that many records are there."""
    records: list[Record] = []
    until(lambda: len(records) >= count, source, into=records, most=most)
    return records
