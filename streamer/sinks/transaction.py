"""What is in a Kafka transaction that is open, and whose offsets it commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any, Protocol

from confluent_kafka import TopicPartition as Position

from streamer.metrics import Metrics
from streamer.records import Release, TopicPartition
from streamer.sinks.writer import Outgoing, Writer

DEFAULTS: dict[str, Any] = {
    "transaction.timeout.ms": 20_000,  # for readers, of a worker that died; for a worker, of its broker
    "retry.backoff.ms": 10,  # after "not yet", while the broker ends the transaction before
}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The producer's settings with the time-outs that follow from the transaction's."""
    merged = {**DEFAULTS, **settings}
    timeout = int(merged["transaction.timeout.ms"])
    merged["message.timeout.ms"] = timeout * 3 // 4
    return {"socket.timeout.ms": timeout // 2, **merged}


class Group(Protocol):
    """What a transaction asks of the consumer, on the consumer's thread."""

    def membership(self) -> Any:
        """The proof that offsets come from a member; None when this is none any more."""

    def notes(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, str]:
        """What was committed beside the group's offsets, where something was. Raises TransientError."""


class Transaction:
    """Whole releases, in order. `begun` is when it was; `unsent` is what its producer has not taken yet."""

    def __init__(self, begun: float, metrics: Metrics) -> None:
        self.begun = begun
        self._metrics = metrics
        self.releases: list[Release] = []
        self.unsent: deque[Outgoing] = deque()
        self.broken = False  # a message failed: it cannot be committed any more
        self.why: str | None = None  # what has to pass before the same is tried again
        self._lanes: set[Any] = set()
        self._name = token_hex(8)
        self._sent: Sequence[TopicPartition] = ()

    def take(self, release: Release, writer: Writer) -> None:
        self.releases.append(release)
        for job in release.jobs:
            if job.lane.closed:
                job.lane.drop(job)
            else:
                self._lanes.add(job.lane)
        self.unsent.extend(writer.messages(release))

    def fill(self, writer: Writer) -> bool:
        """Hand over what is unsent; False when some of it must wait."""
        while self.unsent:
            if self.broken or not writer.send(self.unsent[0]):
                return False
            self.unsent.popleft()
        return True

    @property
    def outdated(self) -> bool:
        """Whether it holds what belongs to a partition that has gone: its new owner redoes that."""
        return any(lane.closed for lane in self._lanes)

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The newest offset of each partition that is still ours."""
        offsets: dict[TopicPartition, int] = {}
        for release in self.releases:
            offsets |= release.offsets
        return offsets

    def sign(self) -> list[Position]:
        """The same for librdkafka, as it is now, and beside each offset the name of this transaction."""
        self._sent = list(self.offsets)
        return [Position(*at, offset, self._name) for at, offset in self.offsets.items()]

    def happened(self, group: Group) -> bool:
        """Whether it was committed: then its name is beside the group's offsets. Raises TransientError.

        The offsets alone would not tell: one that it did not move is there without it, and who owns a
        partition by now may have committed the same. One name is enough, for all of them go together; where
        none is left, others have gone on from all of its partitions, and nothing of it is ours to mark.
        """
        return bool(self._sent) and self._name in group.notes(self._sent).values()

    def commit(self, now: float) -> None:
        """It is committed: so are its releases."""
        self.end("committed", now)
        for release in self.releases:
            release.committed = True
            release.unacknowledged = 0

    def end(self, outcome: str, now: float) -> None:
        """It is over: count it."""
        self._metrics.transactions[outcome] += 1
        self._metrics.transaction_seconds.observe(now - self.begun)

    def fail(self, why: str | None) -> None:
        self.broken = True
        self.why = self.why or why
