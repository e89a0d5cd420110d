"""The twins of `state.redis` in memory, for tests and embedding, and no deduplication at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from streamer.records import DeadLetter, Job, Record, TopicPartition


class MemoryDeduplicator:
    """The same claims in dicts that outlive the engine, as Redis does."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[TopicPartition, int]] = {}
        self.written: dict[TopicPartition, int] = {}

    def claim(self, jobs: Sequence[Job]) -> list[str | None]:
        return [self._claim(job.id, *_coordinate(job.record)) for job in jobs]

    def mark(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            self.written[partition] = max(offset, self.written.get(partition, -1))

    def give_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if self.claims.get(job.id) == _coordinate(job.record):
                del self.claims[job.id]

    def _claim(self, id: str, partition: TopicPartition, offset: int) -> str | None:
        holder = self.claims.get(id)
        if holder is None:  # new, or given back: then also below what is written, and it goes on all the same
            self.claims[id] = partition, offset
            return None
        if holder != (partition, offset):
            return "duplicate"
        return "redelivered" if offset < self.written.get(partition, -1) else None


class NoDeduplication:
    """Every record goes on: `deduplication.enabled: false`."""

    def claim(self, jobs: Sequence[Job]) -> list[str | None]:
        return [None] * len(jobs)

    def mark(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing was claimed."""

    def give_back(self, jobs: Iterable[Job]) -> None:
        """Nothing was claimed."""


class MemoryDeadLetters:
    """Counts by reason, since the start of the process."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, jobs: Sequence[Job]) -> None:
        self._counts.update(job.settled.reason for job in jobs if isinstance(job.settled, DeadLetter))

    def counts(self) -> dict[str, int]:
        return dict(self._counts)


def _coordinate(record: Record) -> tuple[TopicPartition, int]:
    return TopicPartition(record.topic, record.partition), record.offset
