"""The Kafka consumer, owned by one thread.

What shapes this file, all of it measured on librdkafka 2.16:

- A callback that raises inside `consume()` destroys the batch that was about to be returned. So callbacks
  here never raise: what the assignment raises is kept, and raised by `poll` before the next record is read.
- `consume(n, timeout)` waits out the whole time-out unless n records arrive. `poll(timeout)` and then
  `consume(n - 1, 0)` returns with what is there.
- A partition that was paused when it left comes back paused: `resume` after every assignment.
- An asynchronous commit without offsets commits what a rebalance may have moved: see `commits.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as Position

from streamer.errors import StreamerError, TransientError
from streamer.messages import read
from streamer.metrics import Metrics
from streamer.protocols import Assignment
from streamer.records import Record, TopicPartition
from streamer.sources import group, unreadable
from streamer.sources.commits import Commits
from streamer.sources.group import KafkaGroup, ending, no_way_on, partition_of, partitions_of
from streamer.statistics import Statistics, read_statistics

log = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = {
    "auto.offset.reset": "earliest",
    # Sized to a few windows, not to the 64 MB and 100,000 records a partition of the defaults.
    "queued.max.messages.kbytes": 16384,
    "queued.min.messages": 20000,
    # A full queue stops fetching for a second by default: an eternity at 30,000 records a second.
    "fetch.queue.backoff.ms": 5,
    "statistics.interval.ms": 5000,
    # As in Java: what a disk or a network has damaged is no record. librdkafka would not look.
    "check.crcs": True,
    # A commit waits for an answer this long, a minute by default; a drain has no minute.
    "socket.timeout.ms": 10000,
}
REQUIRED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
}
GOODBYE = 5.0  # seconds for leaving the group


class KafkaSource:
    """Reads one topic as a member of a consumer group.

    `settings` are librdkafka's; they override DEFAULTS, and REQUIRED overrides them.
    """

    def __init__(
        self,
        topic: str,
        settings: Mapping[str, Any],
        metrics: Metrics | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        merged = group.with_assignor({**DEFAULTS, **settings, **REQUIRED})
        self._incremental = group.is_cooperative(merged)
        self._topic = topic
        self._metrics = metrics = metrics or Metrics()
        self._clock = clock
        self._assignment: Assignment | None = None
        self._owned: set[TopicPartition] = set()
        self._moved: set[TopicPartition] = set()  # assigned, revoked or lost since the first record of a poll
        self._ends: dict[TopicPartition, int] = {}
        self._paused = False
        self._failure: BaseException | None = None
        # Lag by partition, as of the last statistics; a partition whose lag is unknown is absent.
        self._lag: dict[TopicPartition, int] = {}
        self._searches = unreadable.Searches(merged)
        self._consumer = Consumer(
            {
                **merged,
                "on_commit": self._on_commit,
                "error_cb": self._on_error,
                "stats_cb": self._on_statistics,
                "logger": log,
            }
        )
        self.group = KafkaGroup(self._consumer)
        self._commits = Commits(self._consumer, self.group, metrics, clock)

    def subscribe(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        self._commits.send_if_due(self._clock())
        messages = self._take(max_records, timeout)
        records: list[Record] = []
        for message in messages:
            if message.error() is not None:
                self._note(message)
                continue
            record = read(message)
            if self._searches and TopicPartition(record.topic, record.partition) in self._searches:
                continue  # behind a batch that was passed over: it will be read again
            records.append(record)
            if self._ends:
                self._ends.pop(TopicPartition(record.topic, record.partition), None)
        for passage in self._searches.ended():
            if passage.record is not None:
                records.append(passage.record)
            self._go_on(passage.partition, passage.offset)
        return records

    def ends(self) -> Mapping[TopicPartition, int]:
        return self._ends

    def exhausted(self) -> bool:
        """An end that was seen once says nothing of a broker that has gone since."""
        try:
            return all(self._ends.get(at) == self.group.end(at) for at in self._owned)
        except TransientError as error:
            log.warning("is there more to read? %s", error)
            return False

    def lag(self) -> Mapping[TopicPartition, int]:
        return self._lag

    def pause(self) -> None:
        self._paused = True
        with no_way_on():
            self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        self._paused = False
        with no_way_on():
            assigned = self._consumer.assignment()
            self._consumer.resume([at for at in assigned if partition_of(at) not in self._searches])

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._commits.add(offsets)

    def flush(self, timeout: float) -> None:
        deadline = self._clock() + timeout
        self._commits.send()
        while not self._commits.settled and self._clock() < deadline:
            # A synchronous commit would wait for as long as a broker that is frozen holds the connection.
            # What this reads is not lost: it is not committed.
            for message in self._take(1, 0.05):
                if message.error() is not None:
                    self._note(message)
            self._commits.send_if_due(self._clock())  # what was refused
        if not self._commits.settled:
            raise TransientError("the broker did not take the last commit")

    def close(self) -> None:
        """Leave the group. A broker that is frozen would hold that up without end: then go without a word."""
        self._searches.close()
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(GOODBYE)
        if leaving.is_alive():
            log.warning("the broker does not answer; left the group without a word")
        if self._failure is not None:
            log.warning("while leaving the group: %s", self._failure)

    @no_way_on()
    def _take(self, max_records: int, timeout: float) -> list[Message]:
        """Messages, in order. Raises what was kept meanwhile."""
        first = self._consumer.poll(timeout)
        self._moved.clear()
        more = first is not None and max_records > 1
        messages = self._consumer.consume(max_records - 1, 0) if more else []
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        # librdkafka drops what it holds of a partition that moves; what it has handed out is ours to drop.
        # The next owner, or this one from the committed offset on, reads it again.
        if first is not None and self._place(first) not in self._moved:
            messages.insert(0, first)
        return messages

    def _place(self, message: Message) -> TopicPartition:
        return TopicPartition(message.topic() or self._topic, message.partition() or 0)

    def _note(self, message: Message) -> None:
        """An event that came in the place of a record."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            partition = self._place(message)
            if partition in self._owned and partition not in self._searches:
                self._ends[partition] = message.offset() or 0
        elif error.fatal() or error.code() in group.HOPELESS:
            raise ending(error)
        elif error.code() in unreadable.CODES and (message.offset() or 0) >= 0:
            self._hold(message, error)
        else:
            self._metrics.kafka_errors["consumer", error.name()] += 1
            log.warning("consumer: %s: %s", error.name(), error.str())

    def _hold(self, message: Message, error: KafkaError) -> None:
        """Fetch no more of the partition until it is known where this batch of it ends."""
        partition = self._place(message)
        if partition in self._owned and partition not in self._searches:
            self._metrics.kafka_errors["consumer", error.name()] += 1
            self._ends.pop(partition, None)
            self._consumer.pause([Position(*partition)])
            self._searches.begin(partition, message.offset() or 0, error)

    def _go_on(self, partition: TopicPartition, offset: int) -> None:
        position = Position(*partition, offset)
        with no_way_on():
            self._consumer.seek(position)
            if not self._paused:
                self._consumer.resume([position])

    # -- callbacks: they run inside poll, consume, commit and close, and never raise -------------------------

    def _on_assign(self, consumer: Consumer, positions: list[Position]) -> None:
        partitions = partitions_of(positions)
        self._guarded(lambda: self._listener.assigned(partitions))
        self._owned.update(partitions)
        self._commits.own(partitions)
        self._moved.update(partitions)
        if self._incremental:
            consumer.incremental_assign(positions)
        else:
            consumer.assign(positions)
        if positions:
            (consumer.pause if self._paused else consumer.resume)(positions)

    def _on_revoke(self, consumer: Consumer, positions: list[Position]) -> None:
        partitions = partitions_of(positions)
        self._guarded(lambda: self._listener.revoked(partitions))
        self._guarded(lambda: self._commits.hand_over(partitions))
        self._disown(consumer, positions, partitions)

    def _on_lost(self, consumer: Consumer, positions: list[Position]) -> None:
        partitions = partitions_of(positions)
        self._guarded(lambda: self._listener.lost(partitions))
        self._disown(consumer, positions, partitions)

    def _disown(
        self, consumer: Consumer, positions: list[Position], partitions: Sequence[TopicPartition]
    ) -> None:
        self._moved.update(partitions)
        self._commits.disown(partitions)
        self._searches.give_up(partitions)
        for partition in partitions:
            self._owned.discard(partition)
            self._ends.pop(partition, None)
            self._lag.pop(partition, None)
        if self._incremental:
            consumer.incremental_unassign(positions)
        else:
            consumer.unassign()

    def _on_commit(self, error: KafkaError | None, positions: list[Position]) -> None:
        self._guarded(lambda: self._commits.answer(error, positions))

    def _on_error(self, error: KafkaError) -> None:
        self._metrics.kafka_errors["consumer", error.name()] += 1
        if error.fatal():
            self._failure = ending(error)
        else:
            log.warning("consumer: %s: %s", error.name(), error.str())

    def _on_statistics(self, statistics: str) -> None:
        self._guarded(lambda: self._learn(read_statistics(statistics)))

    def _learn(self, statistics: Statistics) -> None:
        self._lag = {p: lag for p, lag in statistics.lags(self._ends).items() if p in self._owned}
        self._metrics.brokers_up = statistics.brokers_up
        self._metrics.member = self.group.joined and statistics.coordinated

    @property
    def _listener(self) -> Assignment:
        assert self._assignment is not None, "subscribe comes first"
        return self._assignment

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if not isinstance(error, StreamerError):
                log.exception("in a Kafka callback")
            self._failure = self._failure or error
