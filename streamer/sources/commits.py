"""Offsets on their way to the group: asynchronous commits, one at a time, and a last one that is waited for.

Each carries explicit offsets, the newest of every partition, and only of partitions that are owned. What is
refused goes again, in its newest state, for what is still owned.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position

from streamer.errors import TransientError
from streamer.metrics import Metrics
from streamer.records import TopicPartition
from streamer.sources.group import HOPELESS, KafkaGroup, ending, positions_of

log = logging.getLogger(__name__)

INTERVAL = 0.1  # seconds between commits
HANDOVER = 5.0  # seconds for the last commit of a partition that goes


class Commits:
    """Of the partitions that `own` was told of and `disown` was not."""

    def __init__(
        self, consumer: Consumer, group: KafkaGroup, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._metrics = metrics
        self._clock = clock
        self._asked: deque[float] = deque()  # when each commit was sent that is not answered
        self._owned: set[TopicPartition] = set()
        self._waiting: dict[TopicPartition, int] = {}
        self._sent: dict[TopicPartition, int] = {}  # the newest of each partition
        self._due = 0.0

    @property
    def settled(self) -> bool:
        """Whether all is committed."""
        return not (self._waiting or self._asked)

    def own(self, partitions: Iterable[TopicPartition]) -> None:
        self._owned.update(partitions)

    def disown(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._owned.discard(partition)
            self._waiting.pop(partition, None)
            self._sent.pop(partition, None)

    def add(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._waiting |= {at: offset for at, offset in offsets.items() if at in self._owned}

    def send_if_due(self, now: float) -> None:
        if not self._asked and now >= self._due:
            self._due = now + INTERVAL
            self.send()

    def send(self) -> None:
        if not self._waiting:
            return
        positions = positions_of(self._waiting)
        self._sent |= self._waiting
        self._waiting = {}
        self._asked.append(self._clock())
        try:
            self._consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self.answer(error.args[0], positions)

    def answer(self, error: KafkaError | None, positions: Sequence[Position]) -> None:
        """The broker's word on a commit. Raises FatalError when no other would get another one."""
        if self._asked:
            self._metrics.commits.observe(self._clock() - self._asked.popleft())
        failed = error or next((p.error for p in positions if p.error is not None), None)
        if failed is None or failed.code() == KafkaError._NO_OFFSET:
            return
        self._metrics.kafka_errors["consumer", failed.name()] += 1
        if failed.fatal() or failed.code() in HOPELESS:
            raise ending(failed)
        # A partition that has moved is no longer owned: its records will be read again by its new owner.
        log.warning("commit failed, tried again for what is still owned: %s", failed)
        for position in positions:
            partition = TopicPartition(position.topic, position.partition)
            if partition in self._sent:
                self._waiting.setdefault(partition, self._sent[partition])  # never an older one

    def hand_over(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit what is left of these, and wait until the group has it: the next owner starts behind it.

        A synchronous commit would wait for as long as a broker that is frozen holds the connection, and the
        answer to an asynchronous one comes through `poll`, which must not be called in a callback. But the
        broker answers in the order in which it was asked: once it tells the offsets, they are committed.
        """
        if self._asked:
            self._waiting = self._sent | self._waiting  # again, in case that one is refused
        last = {at: self._waiting[at] for at in partitions if at in self._waiting}
        if not last:
            return
        self.send()
        try:
            committed = self._group.committed(list(last), HANDOVER)
        except TransientError as error:
            log.warning("the last commit may not have happened, then its records are read again: %s", error)
            return
        if any(committed.get(at, -1) < offset for at, offset in last.items()):
            log.warning("the last commit was refused, its records will be read again")
