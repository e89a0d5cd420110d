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
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer.backoff import Backoff
from streamer.errors import FatalError
from streamer.records import DeadLetter, Envelope, Job, Release, Result, Skip

log = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = {
    "linger.ms": 5,
    # The bound on what is under way is the ledger's, in bytes, and it is far below these.
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1 << 20,
    # Below the broker's own limit by default: a legal record could not be dead-lettered.
    "message.max.bytes": 16_000_000,
}
REQUIRED: dict[str, Any] = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0}


class _Message(NamedTuple):
    """A job to be written; `number` counts them in the order of publication."""

    number: int
    release: Release
    job: Job


class KafkaSink:
    """Publishes releases. `partitions` is the number of partitions of `results` and of `dead_letters`.

    A result goes to the partition with the number of its source's (modulo): so the order of the input is the
    order of the output, records of one key stay together, and equal topics stay co-partitioned.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        results: str,
        dead_letters: str,
        partitions: Mapping[str, int],
        encode: Callable[[Job], Envelope],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._producer = Producer(
            {**DEFAULTS, **settings, **REQUIRED, "error_cb": self._on_error, "logger": log}
        )
        self._results = results
        self._dead_letters = dead_letters
        self._partitions = partitions
        self._encode = encode
        self._clock = clock
        self._wall = wall
        self._fatal: KafkaError | None = None
        self._in_flight = 0
        self._number = 0
        self._held: deque[_Message] = deque()  # what could not be handed over, or came back
        self._backoff = Backoff(initial=0.1)
        # "Too large" is said of whole batches, and most of their messages are small. They go again alone:
        # only a message that was refused by itself is to blame. These are their numbers.
        self._suspects: set[int] = set()
        self._sent_alone = False
        self._closed = False

    def publish(self, release: Release) -> None:
        for job in release.jobs:
            if isinstance(job.settled, Skip):
                continue
            release.unacknowledged += 1
            self._number += 1
            message = _Message(self._number, release, job)
            if self._held or not self._send(message):
                self._held.append(message)

    def poll(self, timeout: float) -> None:
        self._producer.poll(timeout)
        if self._fatal is not None:
            raise FatalError(f"producer: {self._fatal.name()}: {self._fatal.str()}")
        if self._held and not self._in_flight and self._backoff.ready(self._clock()):
            self._send_held()

    def close(self) -> None:
        """Forget what is not acknowledged: its offsets are not committed either."""
        self._closed = True
        self._producer.purge()
        self._producer.poll(0)

    def _send_held(self) -> None:
        waiting, self._held = sorted(self._held, key=attrgetter("number")), deque()
        for message in waiting:
            if message.job.lane.closed:
                # Its partition has a new owner. It was not written, so it must not be marked as written.
                message.job.settled = Skip("revoked")
                message.release.unacknowledged -= 1
            elif self._held or not self._send(message):
                self._held.append(message)

    def _send(self, message: _Message) -> bool:
        """Hand a message to librdkafka; False when it must wait."""
        job, alone = message.job, message.number in self._suspects
        if self._in_flight and (alone or self._sent_alone):
            return False
        topic = self._topic_of(job)
        key, value, headers, timestamp = self._encode(job)
        try:
            self._producer.produce(
                topic,
                value,
                key,
                job.record.partition % self._partitions[topic],
                on_delivery=partial(self._delivered, message, alone),
                timestamp=timestamp,
                headers=headers,  # type: ignore[arg-type]  # lists are invariant; no str is in this one
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._in_flight += 1
            self._delivered(message, True, error.args[0], None)
            return True
        self._in_flight += 1
        self._sent_alone = alone
        return True

    def _delivered(
        self, message: _Message, alone: bool, error: KafkaError | None, receipt: Message | None
    ) -> None:
        self._in_flight -= 1
        if self._closed:
            return
        if error is None:
            message.release.unacknowledged -= 1
            if self._suspects:
                self._suspects.discard(message.number)
            if self._backoff.failures:
                self._backoff.succeed()
            return
        if error.fatal():
            self._fatal = self._fatal or error
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and not alone:
            self._suspects.add(message.number)
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and isinstance(message.job.settled, Result):
            self._refuse(message.job)
        elif not self._held or self._backoff.ready(self._clock()):
            wait = self._backoff.fail(self._clock())
            topic = self._topic_of(message.job)
            log.error("%s: cannot write to it, trying again in %.1f s: %s", topic, wait, error)
        self._held.append(message)

    def _refuse(self, job: Job) -> None:
        """A result that the topic does not take, for what came with the record: the record is dead."""
        result = job.settled
        assert isinstance(result, Result)
        job.settled = DeadLetter(
            "result_too_large",
            "MSG_SIZE_TOO_LARGE",
            f"{self._results} takes no message of this size",
            "publish",
            1,
            result.model,
            int(self._wall() * 1000),
        )

    def _topic_of(self, job: Job) -> str:
        return self._results if isinstance(job.settled, Result) else self._dead_letters

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = self._fatal or error
        else:
            log.warning("producer: %s: %s", error.name(), error.str())
