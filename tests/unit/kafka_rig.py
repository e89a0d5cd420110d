"""A Kafka source over a consumer that plays a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position

from streamer.metrics import Metrics
from streamer.records import TopicPartition
from streamer.sources.commits import Commits
from streamer.sources.group import KafkaGroup
from streamer.sources.kafka import KafkaSource
from tests.contract.source_worlds import Listener

FIRST = TopicPartition("texts.in", 0)
# Nobody listens there: the real client behind the scripted one stays alone.
NOWHERE = {"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0}


class Message:
    def __init__(self, offset: int, partition: int = 0, error: KafkaError | None = None) -> None:
        self._offset, self._partition, self._error = offset, partition, error

    def topic(self) -> str:
        return "texts.in"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> None:
        return None


class Scripted:
    """A consumer that plays a script: messages, and calls in the place where librdkafka would make them."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        self.wait = wait
        self.queue: list[Message | Callable[[], None]] = []
        self.commits: list[tuple[dict[TopicPartition, int], bool]] = []
        self.committed_asked: list[float] = []
        self.answers = True
        self.end = 0
        self.member = "me"

    def poll(self, timeout: float) -> Message | None:
        """One entry of the script: a message, or a call."""
        if not self.queue:
            self.wait(timeout)
            return None
        next_one = self.queue.pop(0)
        if isinstance(next_one, Message):
            return next_one
        next_one()
        return None

    def consume(self, count: int, timeout: float) -> list[Message]:
        found: list[Message] = []
        while self.queue and len(found) < count:
            next_one = self.queue.pop(0)
            if isinstance(next_one, Message):
                found.append(next_one)
            else:
                next_one()
        return found

    def commit(self, offsets: list[Position], asynchronous: bool) -> list[Position]:
        sent = {TopicPartition(at.topic, at.partition): at.offset for at in offsets}
        self.commits.append((sent, asynchronous))
        return offsets

    def committed(self, positions: list[Position], timeout: float) -> list[Position]:
        self.committed_asked.append(timeout)
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        sent, _ = self.commits[-1]
        return [Position(topic, number, offset) for (topic, number), offset in sent.items()]

    def get_watermark_offsets(self, position: Position, timeout: float) -> tuple[int, int] | None:
        return (0, self.end) if self.answers else None

    def memberid(self) -> str:
        return self.member

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **named: []


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.source = KafkaSource("texts.in", NOWHERE, clock=lambda: self.now)
        self.source._consumer.close()
        self.consumer = Scripted(self.wait)
        self.source._consumer = self.consumer  # type: ignore[assignment]
        self.source.group = KafkaGroup(self.consumer)  # type: ignore[arg-type]
        self.metrics = Metrics()
        self.source._metrics = self.metrics
        self.source._commits = Commits(
            self.consumer,  # type: ignore[arg-type]
            self.source.group,
            self.metrics,
            lambda: self.now,
        )
        self.listener = Listener()
        self.source.subscribe(self.listener)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def assign(self, partition: int = 0) -> None:
        self.source._on_assign(self.consumer, [Position("texts.in", partition, 0)])  # type: ignore[arg-type]

    def revoke(self, partition: int = 0) -> None:
        self.source._on_revoke(self.consumer, [Position("texts.in", partition)])  # type: ignore[arg-type]

    def lose(self, partition: int = 0) -> None:
        self.source._on_lost(self.consumer, [Position("texts.in", partition)])  # type: ignore[arg-type]

    def answer(self, offset: int, error: KafkaError | None = None) -> None:
        """The broker's word on a commit of the first partition."""
        self.source._on_commit(error, [Position("texts.in", 0, offset)])

    def poll(self) -> list[int]:
        return [record.offset for record in self.source.poll(100, 0.0)]
