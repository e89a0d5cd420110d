"""Where a batch ends that the client cannot unpack, so that its partition moves on.

librdkafka unpacks a zstd batch up to `receive.message.max.bytes`, and what is larger, or damaged, it fetches
again for ever. Its error names the first offset of the batch, not the last. So the end is searched for, by a
consumer beside the group's: a fetch from inside the batch brings the same error, one from behind it does not.
Steps that double, then a bisection, are some twenty fetches for a batch of a thousand records.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as Position

from streamer.records import UNREADABLE, Defect, Record, TopicPartition

log = logging.getLogger(__name__)

CODE = KafkaError._BAD_COMPRESSION
PATIENCE = 0.5  # seconds between two looks at whether the search is still wanted
OVERRIDES: dict[str, Any] = {
    # Beyond the end, and before the beginning, is an answer; to begin elsewhere would be a wrong one.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # One answer is wanted of each fetch, not what lies behind it.
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 64,
    "statistics.interval.ms": 0,
}


class Batch(NamedTuple):
    """A batch that cannot be unpacked: its first and last offset, and librdkafka's word for why."""

    partition: TopicPartition
    first: int
    last: int
    why: str

    def record(self) -> Record:
        """What goes down the line in its place, to become a dead letter: it has the last offset, so that the
        commit passes the batch in one step, and nothing in it, for nothing is known."""
        said = (
            f"offsets {self.first} to {self.last} ({self.last - self.first + 1:,}) are a batch that cannot "
            f"be unpacked: {self.why}. They are still in the topic: if the batch is sound, it takes a "
            "receive.message.max.bytes (in kafka.consumer) beyond its size to read them"
        )
        return Record(*self.partition, self.last, 0, None, b"", [], Defect(UNREADABLE, said))


class Searches:
    """One search for each partition that is held up, on threads. `settings` are the consumer's."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {**settings, **OVERRIDES}
        self._under_way: dict[TopicPartition, Event] = {}
        self._found: SimpleQueue[tuple[Event, Batch]] = SimpleQueue()

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._under_way

    def begin(self, partition: TopicPartition, first: int, why: str) -> None:
        """Look for the end of the batch that starts at `first`."""
        log.warning("%s[%d]@%d: a batch cannot be unpacked, looking for its end: %s", *partition, first, why)
        unwanted = self._under_way[partition] = Event()

        def search() -> None:
            behind = self._behind(partition, first, unwanted)
            if behind is not None:
                self._found.put((unwanted, Batch(partition, first, behind - 1, why)))

        Thread(target=search, name="unreadable", daemon=True).start()

    def ended(self) -> Iterable[Batch]:
        """The batches whose ends were found since the last call."""
        while self._under_way:
            try:
                unwanted, batch = self._found.get_nowait()
            except Empty:
                return
            if self._under_way.get(batch.partition) is unwanted:
                del self._under_way[batch.partition]
                yield batch

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Somebody else reads these from now on, and will find the same."""
        for partition in partitions:
            if unwanted := self._under_way.pop(partition, None):
                unwanted.set()

    def close(self) -> None:
        self.give_up(list(self._under_way))

    def _behind(self, partition: TopicPartition, first: int, unwanted: Event) -> int | None:
        """The first offset behind the batch; None when nobody wants to know any more."""
        consumer = Consumer({**self._settings, "logger": log})
        try:
            inside, step = first, 1
            while (within := _within(consumer, partition, first, inside + step, unwanted)) is True:
                inside += step
                step *= 2
            behind = inside + step
            while within is not None and behind - inside > 1:
                middle = (inside + behind) // 2
                within = _within(consumer, partition, first, middle, unwanted)
                inside, behind = (middle, behind) if within else (inside, middle)
            return None if within is None else behind
        finally:
            consumer.close()


def _within(
    consumer: Consumer, partition: TopicPartition, first: int, offset: int, unwanted: Event
) -> bool | None:
    """Whether the batch that starts at `first` holds `offset`; None when nobody wants to know any more."""
    consumer.assign([Position(*partition, offset)])
    while not unwanted.is_set():
        message = consumer.poll(PATIENCE)
        if message is None:
            continue
        error = message.error()
        if error is None or error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
            return False
        if error.code() == CODE:
            return message.offset() == first
        log.warning("looking for the end of a batch: %s: %s", error.name(), error.str())
    return None
