"""Settled jobs as messages of a librdkafka producer, and what became of each: what both Kafka sinks share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec.structs import replace

from streamer.delays import Past
from streamer.metrics import Metrics
from streamer.records import CUT, DeadLetter, Delay, Envelope, Job, Release, Result, Skip
from streamer.sinks.calls import RAISED, cause
from streamer.sinks.topics import Topics

log = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = {
    "linger.ms": 5,
    # The bound on what is under way is the ledger's, in bytes, and it is far below these.
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1 << 20,
    # Below the broker's own limit by default: a legal record could not be dead-lettered.
    "message.max.bytes": 16_000_000,
    "batch.size": 1_000_000,
}
REQUIRED: dict[str, Any] = {"enable.idempotence": True, "acks": "all"}

# Fatal, but not for long: the broker and this producer disagree on where they are. An abort that overtakes
# the first request of its transaction is enough for that.
MUDDLED = {
    KafkaError.INVALID_TXN_STATE,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.UNKNOWN_PRODUCER_ID,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}


class Outgoing(NamedTuple):
    """A job to be written; `number` counts them in the order of publication."""

    number: int
    release: Release
    job: Job


class Writer:
    """One producer. Says `written` or `failed` of each message, and nothing once it is closed.

    A result goes to the partition with the number of its source's (modulo): so the order of the input is the
    order of the output, records of one key stay together, and equal topics stay co-partitioned.

    `failed` is told whether the cause has been dealt with, so that the message may go again at once. "Too
    large" is said of whole batches, and while one that was refused comes back, those behind it are written.
    So no batch is larger than the topics take, as far as that is known: what is refused was alone. Where it
    is not known, most messages of the batch are small, and they go again alone: only a result, or a record to
    be delayed, that was refused by itself is to blame, and becomes a dead letter. Of a record that died of
    its size, half is left out until its topic takes it. Any other dead letter holds its partition: it is no
    larger than records may be, so its topic is to blame. One whose time the topic does not take, an hour
    ahead or more, has the time of writing.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topics: Topics,
        *,
        encode: Callable[[Job], Envelope],
        written: Callable[[Outgoing], None],
        failed: Callable[[Outgoing, KafkaError, bool], None],
        refused: list[Job],
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._topics = topics
        self._encode = encode
        self._written = written
        self._failed = failed
        self._refused = refused
        self._metrics = metrics
        self._wall = wall
        self._number = 0
        self._suspects: set[Job] = set()
        self._untimely: set[Job] = set()  # those whose own time their topic does not take
        self._sent_alone = False
        self._closed = False
        self.in_flight = 0
        self.fatal: KafkaError | None = None
        # Whether a connection broke: a request may have been sent twice since.
        self.disturbed = False
        merged = {**DEFAULTS, **settings, **REQUIRED}
        merged["batch.size"] = min([int(merged["batch.size"]), *topics.limits.values()])
        self.producer = Producer({**merged, "error_cb": self._on_error, "logger": log})

    def messages(self, release: Release) -> Iterator[Outgoing]:
        """What is to be written of a release, in order."""
        for job in release.jobs:
            if not isinstance(job.settled, Skip):
                self._number += 1
                yield Outgoing(self._number, release, job)

    def send(self, message: Outgoing) -> bool:
        """Hand a message to librdkafka; False when it must wait."""
        job = message.job
        alone = job in self._suspects
        if self.in_flight and (alone or self._sent_alone):
            return False
        topic = self._topics.of(job)
        key, value, headers, timestamp = self._encode(job)
        try:
            self.producer.produce(
                topic,
                value,
                key,
                job.record.partition % self._topics.partitions[topic],
                on_delivery=partial(self._delivered, message, alone),
                timestamp=0 if job in self._untimely else timestamp,
                headers=headers,  # type: ignore[arg-type]  # lists are invariant; no str is in this one
            )
        except BufferError:
            return False
        except KafkaException as error:
            self.in_flight += 1
            self._delivered(message, True, error.args[0], None)
            return True
        self.in_flight += 1
        self._sent_alone = alone
        return True

    def poll(self, timeout: float) -> None:
        """Serve acknowledgements. A fatal error is kept in `fatal`."""
        try:
            self.producer.poll(timeout)
        except RAISED as error:
            self.fatal = self.fatal or cause(error)

    def close(self) -> None:
        """Forget what is not acknowledged."""
        self._closed = True
        self.producer.purge()
        self.poll(0)

    def explain(self, job: Job, error: KafkaError) -> str:
        """Why a message cannot be written, which holds its partition, and the way out."""
        topic, record = self._topics.of(job), job.record
        why = f"{topic}: cannot write to it: {error.name()}: {error.str()}"
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            size = len(record.value or b"") + len(record.key or b"")
            place = f"{record.topic}[{record.partition}]@{record.offset}"
            return (
                f"{why}. {place} has {size:,} bytes and holds its partition: raise max.message.bytes "
                f"of {topic} (kafka-configs --alter --topic {topic} --add-config "
                f"max.message.bytes={size * 2}), or set compression.type in kafka.producer"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return f"{why}. Create it with `streamer topics create`"
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return f"{why}. Give this worker's user the right Write on {topic}"
        if error.code() == KafkaError.INVALID_TIMESTAMP:
            return f"{why}. The clocks of this machine and of the broker differ too much: set them"
        return why

    def _delivered(
        self, message: Outgoing, alone: bool, error: KafkaError | None, receipt: Message | None
    ) -> None:
        self.in_flight -= 1
        if self._closed:
            return
        if error is None:
            if self._suspects:
                self._suspects.discard(message.job)
                self._untimely.discard(message.job)
            self._written(message)
            return
        self._metrics.kafka_errors["producer", error.name()] += 1
        if error.fatal():
            self.fatal = self.fatal or error
        self._failed(message, error, self._deal_with(message.job, alone, error.code()))

    def _deal_with(self, job: Job, alone: bool, code: int) -> bool:
        """Whether there is a way to have it taken, so that it may go again at once."""
        if code == KafkaError._INVALID_DIFFERENT_RECORD:
            return True  # another message of its batch is to blame
        if code not in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_TIMESTAMP):
            return False
        if not alone:
            self._suspects.add(job)
            return True
        if code == KafkaError.INVALID_TIMESTAMP:
            tried = job in self._untimely
            self._untimely.add(job)
            return not tried
        if isinstance(job.settled, Result | Delay):
            self._refuse(job)
            return True
        return _cut(job)

    def _refuse(self, job: Job) -> None:
        """A result, or a record to be delayed, that its topic does not take: the record is dead."""
        settled, topic = job.settled, self._topics.of(job)
        if isinstance(settled, Delay):
            reason, attempts, model = "retry_too_large", settled.why.attempts, settled.why.model
        else:
            assert isinstance(settled, Result)
            reason, model = "result_too_large", settled.model
            attempts = job.attempts + Past.of(job.record).attempts
        job.settled = DeadLetter(
            reason,
            "MSG_SIZE_TOO_LARGE",
            f"{topic} takes no message of this size",
            "publish",
            max(1, attempts),
            model,
            int(self._wall() * 1000),
        )
        self._refused.append(job)

    def _on_error(self, error: KafkaError) -> None:
        self.disturbed = True
        self._metrics.kafka_errors["producer", error.name()] += 1
        if error.fatal():
            self.fatal = self.fatal or error
        else:
            log.warning("producer: %s: %s", error.name(), error.str())


def _cut(job: Job) -> bool:
    """Keep half of a record that died of its size; False for others, and when nothing of it is left."""
    record, dead = job.record, job.settled
    if not isinstance(dead, DeadLetter) or dead.reason not in ("too_large", CUT) or not record.value:
        return False
    message = dead.message
    if dead.reason != CUT:
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        message = f"{message}; cut to what the dead-letter topic takes: {place} has the whole"
    job.record = replace(record, value=record.value[: len(record.value) // 2])
    job.settled = replace(dead, reason=CUT, message=message)
    return True
