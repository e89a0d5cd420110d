"""Delayed records, brought back to the input topic when they are due: read, wait, write, commit.

A partition of a retry topic whose next record is not due is paused; polling goes on, so that the group sees
a member that lives. All of one topic wait equally long: the one that came first is due first, and none is
held up by one behind it. What is due goes back in a Kafka transaction with the offsets of the retry topics,
so that a crash neither repeats nor loses a record. Nothing else is remembered: a mover that starts reads
again what was not brought back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Position

from streamer.backoff import Backoff
from streamer.codec import Decoder
from streamer.errors import FatalError, TransientError
from streamer.messages import read
from streamer.metrics import Metrics
from streamer.protocols import DeadLetterQueue, Deduplicator
from streamer.records import TopicPartition
from streamer.retry.clients import ANSWER, topics_on
from streamer.retry.records import Delayed, Parcel, back, buried
from streamer.shipping import CHUNK_BYTES, CHUNK_RECORDS, Aborted, Shipper

log = logging.getLogger(__name__)

PATIENCE = 0.1  # seconds: the longest wait for records, so that signals are served
HOPELESS = {
    KafkaError._FATAL,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.FENCED_INSTANCE_ID,
}


class Mover:
    """Moves records from the topics of `levels`, and others of `prefix`, to `input`.

    What `input` does not take goes to `dead_letters`; `partitions` has the number of partitions of these two.
    `run` works until it is told to stop, or nothing has been waiting for a while. Raises FatalError; and
    StreamerError when the broker is away for so long that one with new clients is the better to go on.
    """

    def __init__(
        self,
        consumer: Consumer,
        shipper: Shipper,
        *,
        levels: Sequence[str],
        prefix: str,
        input: str,
        dead_letters: str,
        partitions: dict[str, int],
        decoder: Decoder,
        deduplicator: Deduplicator,
        index: DeadLetterQueue,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._consumer = consumer
        self._shipper = shipper
        self._input, self._dead_letters, self._partitions = input, dead_letters, partitions
        self._decoder = decoder
        self._deduplicator = deduplicator
        self._index = index
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._waiting: dict[TopicPartition, deque[Delayed]] = {}
        self._ends: set[TopicPartition] = set()
        self._backoff = Backoff(initial=0.1)
        self._busy_at = clock()
        topics = topics_on(consumer, prefix, levels)
        shipper.begin()  # before the first offset is read: what a killed one left open is ended by now
        consumer.subscribe(
            topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        metrics.stage, metrics.polled_at = "running", clock()
        log.info("bringing records back from %s to %s", ", ".join(topics), input)

    def run(self, stopping: Callable[[], bool], exit_when_idle: float | None = None) -> None:
        while not stopping():
            try:
                self.step()
            except KafkaException as error:  # a fatal one, whatever `error_cb` is there for
                raise FatalError(f"{error.args[0].name()}: {error.args[0].str()}") from None
            if exit_when_idle is not None and self.idle_for() >= exit_when_idle:
                break

    def close(self) -> None:
        """Leave the group. A broker that is frozen would hold that up without end: then go without a word."""
        metrics = self._metrics
        leaving = threading.Thread(target=self._consumer.close, name="leaving", daemon=True)
        leaving.start()
        leaving.join(ANSWER)
        metrics.assigned, metrics.member, metrics.brokers_up = 0, False, None

    def step(self) -> None:
        self._metrics.polled_at = self._clock()
        self._take()
        due = self._due()
        if not due:
            self._deduplicator.look(self._clock())
        elif self._backoff.ready(self._clock()):
            self._move(due)

    def idle_for(self) -> float:
        """Seconds for which every assigned partition was read to its end and nothing was waiting."""
        if not self._waiting or any(self._waiting.values()) or self._ends != self._waiting.keys():
            self._busy_at = self._clock()
        return self._clock() - self._busy_at

    # -- read ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Read what is there, up to a chunk. A partition whose newest is not due gives no more for now."""
        room, size = CHUNK_RECORDS, CHUNK_BYTES
        timeout = self._time_to_poll()
        while room > 0 and size > 0 and (message := self._consumer.poll(timeout)) is not None:
            timeout = 0.0
            if (error := message.error()) is not None:
                self._note(message, error)
                continue
            found = read(message)
            partition = TopicPartition(found.topic, found.partition)
            self._ends.discard(partition)
            delayed = Delayed.of(found)
            if (lane := self._waiting.get(partition)) is None:
                continue  # it went with a rebalance in this very call
            lane.append(delayed)
            room, size = room - 1, size - len(found.value or b"")
            if delayed.due > self._now():
                self._consumer.pause([Position(*partition)])

    def _due(self) -> list[Delayed]:
        """What may go now, each partition in its order, as much as a transaction should hold."""
        now, size = self._now(), 0
        chunk: list[Delayed] = []
        for lane in self._waiting.values():
            for delayed in lane:
                if delayed.due > now or len(chunk) >= CHUNK_RECORDS or size > CHUNK_BYTES:
                    break
                chunk.append(delayed)
                size += len(delayed.found.value or b"")
        return chunk

    def _time_to_poll(self) -> float:
        until = min([lane[0].due for lane in self._waiting.values() if lane], default=None)
        wait = PATIENCE if until is None else max(0.0, min(PATIENCE, until / 1000 - self._wall()))
        return wait if self._backoff.ready(self._clock()) else PATIENCE

    def _now(self) -> int:
        return int(self._wall() * 1000)

    def _note(self, message: Message, error: KafkaError) -> None:
        """An event that came in the place of a record."""
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends.add(TopicPartition(message.topic() or "", message.partition() or 0))
        elif error.fatal() or error.code() in HOPELESS:
            raise FatalError(f"{error.name()}: {error.str()}")
        else:
            log.warning("consumer: %s: %s", error.name(), error.str())

    # -- write -----------------------------------------------------------------------------------------------

    def _move(self, due: list[Delayed]) -> None:
        """Bring them back. What fails for a while stays where it is, and goes later."""
        try:
            # A worker that died after its transaction has not given the claim back, and its own record would
            # look like a duplicate.
            self._deduplicator.give_back([job for one in due if (job := one.claim(self._decoder))])
            self._ship(due)
        except (TransientError, Aborted) as error:
            wait = self._backoff.fail(self._clock())
            log.warning("%d records are due and wait %.1f s: %s", len(due), wait, error)
            # What is due goes on being read otherwise, and nothing of it leaves.
            self._consumer.pause([Position(*partition) for partition in self._waiting])
        else:
            if self._backoff.failures:
                self._backoff.succeed()
                empty = [Position(*partition) for partition, lane in self._waiting.items() if not lane]
                self._consumer.resume(empty)

    def _ship(self, due: list[Delayed]) -> None:
        for defect, run in groupby(due, lambda one: one.found.defect):
            if defect:
                for delayed in run:
                    self._bury(delayed, defect.detail)
                continue
            parcels = [back(delayed, self._input, self._partitions[self._input]) for delayed in run]
            self._shipper.ship(parcels, finish=self._commit, done=self._returned, refuse=self._refuse)

    def _commit(self, parcels: Sequence[Parcel], receipts: Sequence[Message]) -> None:
        """Their offsets join the transaction that is open."""
        if not self._consumer.memberid():
            # The broker would take the offsets as those of a stranger.
            raise Aborted("this process is no member of its group at the moment")
        offsets = {(at.topic, at.partition): at.offset + 1 for at in (one.delayed.found for one in parcels)}
        positions = [Position(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        self._shipper.send_offsets(positions, self._consumer.consumer_group_metadata())

    def _returned(self, parcels: Sequence[Parcel], receipts: Sequence[Message]) -> None:
        self._forget(parcels, receipts)
        self._metrics.records += len(parcels)
        log.info("%d delayed records are back in %s", len(parcels), self._input)

    def _forget(self, parcels: Sequence[Parcel], receipts: Sequence[Message]) -> None:
        """They are committed, each partition in its order; read on where none waits."""
        for parcel in parcels:
            found = parcel.delayed.found
            lane = self._waiting[TopicPartition(found.topic, found.partition)]
            lane.popleft()
            if not lane:
                self._consumer.resume([Position(found.topic, found.partition)])

    def _refuse(self, parcel: Parcel, why: str) -> None:
        """Before anything behind it is committed."""
        self._bury(parcel.delayed, f"{self._input} does not take it back: {why}")

    def _bury(self, delayed: Delayed, why: str) -> None:
        job = delayed.letter(why, self._now())
        parcel = buried(delayed, job, self._dead_letters, self._partitions[self._dead_letters])

        def held(parcel: Parcel, why: str) -> None:
            raise Aborted(
                f"{self._dead_letters} does not take a dead letter, which holds its partition: {why}"
            )

        self._shipper.ship([parcel], finish=self._commit, done=self._forget, refuse=held)
        self._metrics.dead[delayed.reason] += 1
        try:
            self._index.add([job])
        except TransientError as error:
            log.warning("a dead letter is not indexed: %s", error)

    # -- callbacks: they run inside poll and close, and never raise -----------------------------------------

    def _on_assign(self, consumer: Consumer, positions: list[Position]) -> None:
        consumer.incremental_assign(positions)
        for position in positions:
            self._waiting[TopicPartition(position.topic, position.partition)] = deque()
        if positions:
            consumer.resume(positions)  # one that was paused when it left comes back paused
        self._metrics.assigned, self._metrics.member = len(self._waiting), True

    def _on_revoke(self, consumer: Consumer, positions: list[Position]) -> None:
        """No transaction is open between two steps: what waits is read again by whoever comes."""
        for position in positions:
            partition = TopicPartition(position.topic, position.partition)
            self._waiting.pop(partition, None)
            self._ends.discard(partition)
        consumer.incremental_unassign(positions)
        self._metrics.assigned = len(self._waiting)

    def _on_lost(self, consumer: Consumer, positions: list[Position]) -> None:
        self._on_revoke(consumer, positions)
        self._metrics.member = False
