"""Where a batch ends that the client cannot read, so that its partition moves on.

librdkafka unpacks a zstd batch up to `receive.message.max.bytes`, and fetches what is larger again for ever.
A batch whose checksum is wrong it fetches again too, or passes over, once another comes along with it. Its
error names the first offset of the batch, not the last. So the end is searched for, by a consumer beside the
group's: a fetch from inside the batch brings the same error, one from behind it does not. Steps that double,
then a bisection, are some twenty fetches for a batch of a thousand records. A batch that was damaged on its
way only is read again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position

from streamer.errors import FatalError
from streamer.records import UNREADABLE, Defect, Record, TopicPartition

log = logging.getLogger(__name__)

CODES = KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG
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


class Passage(NamedTuple):
    """The offset from which on a partition can be read, and the record that stands for the batch before it:
    None where the batch was damaged on its way only, and is to be read again."""

    partition: TopicPartition
    offset: int
    record: Record | None


class Searches:
    """One search for each partition that is held up, on threads. `settings` are the consumer's."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {**settings, **OVERRIDES}
        self._under_way: dict[TopicPartition, Event] = {}
        self._found: SimpleQueue[tuple[Event, Passage | FatalError]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._under_way

    def begin(self, partition: TopicPartition, first: int, error: KafkaError) -> None:
        """Look for the end of the batch that starts at `first`."""
        why = error.str()
        if error.code() == KafkaError._BAD_COMPRESSION:
            why = f"{why}. If it is sound, receive.message.max.bytes (in kafka.consumer) is too small for it"
        log.warning("%s[%d]@%d: a batch cannot be read, looking for its end: %s", *partition, first, why)
        unwanted = self._under_way[partition] = Event()

        def search() -> None:
            try:
                passage = self._search(partition, first, why, unwanted)
                if passage is not None:
                    self._found.put((unwanted, passage))
            except Exception as failure:
                what = f"{type(failure).__name__} while looking for the end of a batch"
                self._found.put((unwanted, FatalError(what)))

        Thread(target=search, name="unreadable", daemon=True).start()

    def ended(self) -> Iterable[Passage]:
        """What was found since the last call. Raises FatalError where nothing can be."""
        while self._under_way:
            try:
                unwanted, passage = self._found.get_nowait()
            except Empty:
                return
            if isinstance(passage, FatalError):
                if unwanted.is_set():
                    continue
                raise passage
            if self._under_way.get(passage.partition) is unwanted:
                del self._under_way[passage.partition]
                yield passage

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Somebody else reads these from now on, and will find the same."""
        for partition in partitions:
            if unwanted := self._under_way.pop(partition, None):
                unwanted.set()

    def close(self) -> None:
        self.give_up(list(self._under_way))

    def _search(self, partition: TopicPartition, first: int, why: str, unwanted: Event) -> Passage | None:
        """None when nobody wants to know any more."""
        consumer = Consumer({**self._settings, "logger": log})
        try:
            within = _within(consumer, partition, first, first, unwanted)
            if within is False:
                return _again(consumer, partition, first, unwanted)
            inside, step = first, 1
            while within and (within := _within(consumer, partition, first, inside + step, unwanted)):
                inside += step
                step *= 2
            behind = inside + step
            while within is not None and behind - inside > 1:
                middle = (inside + behind) // 2
                within = _within(consumer, partition, first, middle, unwanted)
                inside, behind = (middle, behind) if within else (inside, middle)
            if within is None:
                return None
            return Passage(partition, behind, _stand_in(partition, first, inside, why))
        finally:
            consumer.close()


def _again(consumer: Consumer, partition: TopicPartition, first: int, unwanted: Event) -> Passage | None:
    """To read the batch again, but nothing twice: where reading began inside of it, nothing was read since,
    and that is the committed offset."""
    while not unwanted.is_set():
        try:
            (committed,) = consumer.committed([Position(*partition)], timeout=PATIENCE)
        except KafkaException as error:
            log.warning("%s[%d]: what is committed? %s", *partition, error)
            continue
        if committed.error is None:
            log.warning("%s[%d]@%d: the batch can be read after all", *partition, first)
            return Passage(partition, max(first, committed.offset), None)
        log.warning("%s[%d]: what is committed? %s", *partition, committed.error)
    return None


def _stand_in(partition: TopicPartition, first: int, last: int, why: str) -> Record:
    """What goes down the line in the batch's place, to become a dead letter: it has the last offset, so that
    the commit passes the batch in one step, and nothing in it, for nothing is known."""
    said = f"offsets {first} to {last} ({last - first + 1:,}) are a batch that cannot be read: {why}"
    return Record(*partition, last, 0, None, b"", [], Defect(UNREADABLE, said))


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
        if error.code() in CODES:
            return message.offset() == first
        log.warning("looking for the end of a batch: %s: %s", error.name(), error.str())
    return None
