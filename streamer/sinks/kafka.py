"""The Kafka producer: results to one topic, dead letters to another, at least once and in order.

librdkafka retries for as long as it takes (`message.timeout.ms` 0) and keeps the order while it does
(idempotence). What it still reports as failed is a refusal: a topic that is missing or denied, a message that
is too large. Then nothing new is sent until all that is under way is accounted for, and what failed goes
again, in the old order, after a backoff. The commit waits all the while: see invariant 6.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from confluent_kafka import KafkaError

from streamer.backoff import Backoff
from streamer.errors import FatalError
from streamer.metrics import Metrics
from streamer.records import Envelope, Job, Release
from streamer.sinks.topics import Topics
from streamer.sinks.writer import Outgoing, Writer

log = logging.getLogger(__name__)


class KafkaSink:
    """Publishes releases to `topics`."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Topics,
        *,
        encode: Callable[[Job], Envelope],
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.refused: list[Job] = []
        self._writer = Writer(
            {**settings, "message.timeout.ms": 0},
            topics,
            encode=encode,
            written=self._written,
            failed=self._failed,
            refused=self.refused,
            metrics=metrics or Metrics(),
            wall=wall,
        )
        self._clock = clock
        self._held: deque[Outgoing] = deque()  # what could not be handed over, or came back
        self._backoff = Backoff(initial=0.1)

    def publish(self, release: Release) -> None:
        for message in self._writer.messages(release):
            release.unacknowledged += 1
            if self._held or not self._writer.send(message):
                self._held.append(message)

    def poll(self, timeout: float) -> None:
        # First what came back earlier: somebody has seen by now what was refused.
        if self._held and not self._writer.in_flight and self._backoff.ready(self._clock()):
            self._send_held()
        self._writer.poll(timeout)
        if (fatal := self._writer.fatal) is not None:
            raise FatalError(f"producer: {fatal.name()}: {fatal.str()}")

    def close(self) -> None:
        """Forget what is not acknowledged: its offsets are not committed either."""
        self._writer.close()

    def _send_held(self) -> None:
        waiting, self._held = sorted(self._held, key=attrgetter("number")), deque()
        for message in waiting:
            if message.job.lane.closed:
                message.job.lane.drop(message.job)
                message.release.unacknowledged -= 1
            elif self._held or not self._writer.send(message):
                self._held.append(message)

    def _written(self, message: Outgoing) -> None:
        message.release.unacknowledged -= 1
        if self._backoff.failures:
            self._backoff.succeed()

    def _failed(self, message: Outgoing, error: KafkaError, again: bool) -> None:
        if not again and not error.fatal() and (not self._held or self._backoff.ready(self._clock())):
            wait = self._backoff.fail(self._clock())
            log.error("%s; trying again in %.1f s", self._writer.explain(message.job, error), wait)
        self._held.append(message)
