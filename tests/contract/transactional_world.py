"""A transactional sink over a real broker, what its readers see, and a clock that can be put forward."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Position

from streamer.codec import encode
from streamer.sinks.topics import Topics
from streamer.sinks.transactional import TransactionalSink
from tests.conftest import MakeTopic
from tests.contract.test_sink import INPUT, Stranger, ids, make_input, read_topic
from tests.servers import KafkaServer

LONG = 3600.0  # an interval after which no test asks: the second transaction stays open


class World:
    """One partition of each topic; a clock that can be put forward."""

    def __init__(self, server: KafkaServer, make_topic: MakeTopic) -> None:
        self.server = server
        self.make_topic = make_topic
        make_input(server)
        self.results, self.dead_letters = make_topic("out", 1), make_topic("dlq", 1)
        self.group = Stranger(server, f"group-{self.results}")
        self.later = 0.0
        self._open: list[TransactionalSink] = []

    def sink(self, *, interval: float = 0.0, **settings: Any) -> TransactionalSink:
        made = TransactionalSink(
            {
                "bootstrap.servers": self.server.bootstrap_servers,
                "topic.metadata.refresh.interval.ms": 200,
                # How long a topic may be unknown before it counts as missing; 30 s by default.
                "topic.metadata.propagation.max.ms": 200,
                **settings,
            },
            Topics(self.results, self.dead_letters, {self.results: 1, self.dead_letters: 1}),
            transactional_id=self.results,
            group=self.group,
            encode=encode,
            interval=interval,
            clock=lambda: monotonic() + self.later,
        )
        self._open.append(made)
        return made

    def ids(self, count: int) -> list[str]:
        return ids([found for _, found in read_topic(self.server, self.results, 1, count)])

    def buried(self, count: int) -> list[bytes | None]:
        return [found.value for _, found in read_topic(self.server, self.dead_letters, 1, count)]

    def committed(self) -> int:
        return self.group.committed([INPUT]).get(INPUT, 0)

    def end(self, isolation: str) -> int:
        """Where the results end for a reader."""
        asking = Consumer(
            {
                "bootstrap.servers": self.server.bootstrap_servers,
                "group.id": "asking",
                "isolation.level": isolation,
            }
        )
        end = asking.get_watermark_offsets(Position(self.results, 0), timeout=30)[1]
        asking.close()
        return end

    def close(self) -> None:
        for sink in self._open:
            sink.close()
        self.group.close()


def poll_until(sink: TransactionalSink, done: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + 30
    while not done():
        assert monotonic() < deadline, what
        sink.poll(0.02)
