"""The twins of `state.redis` in memory, for tests and embedding, and no deduplication at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Generic, TypeVar

from msgspec.structs import replace

from streamer.protocols import Answer
from streamer.records import Job, Record, TopicPartition
from streamer.state.entries import Audit, Entry, entries_of

T = TypeVar("T")


class Known(Generic[T]):
    """An answer that nobody has to wait for."""

    def __init__(self, value: T) -> None:
        self._value = value

    def get(self, timeout: float) -> T:
        return self._value


class MemoryDeduplicator:
    """The same claims in dicts that outlive the engine, as Redis does."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[TopicPartition, int]] = {}
        self.given_back: set[str] = set()
        self.written: dict[TopicPartition, int] = {}
        self.left: dict[TopicPartition, int] = {}
        self.starts: Counter[tuple[TopicPartition, int]] = Counter()

    @property
    def held(self) -> set[str]:
        """The ids that no other record may claim."""
        return self.claims.keys() - self.given_back

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        for job in jobs:
            partition, offset = _coordinate(job.record)
            job.suspect = self.claims.get(_key(job)) == (partition, offset)
            if job.suspect and partition in self.left:
                job.lane.survived = max(job.lane.survived, self.left.pop(partition))
        here = {_coordinate(job.record) for job in jobs}
        return Known([self._claim(_key(job), *_coordinate(job.record), here) for job in jobs])

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        for partition, offset in offsets.items():
            self.written[partition] = max(offset, self.written.get(partition, -1))
        return Known(True)

    def give_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if self.claims.get(_key(job)) == _coordinate(job.record):
                self.given_back.add(_key(job))

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.left |= offsets

    def begin(self, job: Job) -> int:
        self.starts[_coordinate(job.record)] += 1
        return self.starts[_coordinate(job.record)]

    def end(self, job: Job) -> None:
        del self.starts[_coordinate(job.record)]

    def look(self, now: float) -> None:
        """It is always there."""

    def _claim(
        self, id: str, partition: TopicPartition, offset: int, here: Set[tuple[TopicPartition, int]]
    ) -> str | None:
        mine = self.claims.get(id) == (partition, offset)
        if mine and offset < self.written.get(partition, -1):
            return "redelivered"
        if id in self.claims and not mine and id not in self.given_back:
            return "same_window" if self.claims[id] in here else "duplicate"
        self.claims[id] = partition, offset
        self.given_back.discard(id)
        return None


class NoDeduplication:
    """Every record goes on: `deduplication.enabled: false`."""

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        return Known([None] * len(jobs))

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        """Nothing was claimed."""
        return Known(True)

    def give_back(self, jobs: Iterable[Job]) -> None:
        """Nothing was claimed."""

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing was claimed."""

    def begin(self, job: Job) -> int:
        """Nothing is remembered, so nothing is a suspect."""
        return 1

    def end(self, job: Job) -> None:
        """Nothing was counted."""

    def look(self, now: float) -> None:
        """There is nothing to look at."""


class MemoryDeadLetters:
    """The index of dead letters since the start of the process."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._letters: dict[str, Entry] = {}
        self._replayed: set[str] = set()
        self._origins: dict[str, tuple[str, int]] = {}
        self._audits: dict[str, Audit] = {}
        self._stops: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, jobs: Sequence[Job]) -> None:
        self.put(entries_of(jobs))

    def put(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._letters[entry.key] = replace(entry, replayed=False, replays=0, origin="")
            self._replayed.discard(entry.key)
            if len(self._letters) > self._limit:
                self.forget([min(self._letters.values(), key=_age).key])

    def link(self, origins: Mapping[str, tuple[str, int]]) -> None:
        self._origins |= origins
        for key in list(islice(self._origins, max(0, len(self._origins) - self._limit))):
            del self._origins[key]

    def mark_replayed(self, keys: Iterable[str]) -> None:
        self._replayed |= self._letters.keys() & set(keys)

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._letters.pop(key, None)
            self._replayed.discard(key)

    def clear(self) -> None:
        self._letters, self._replayed, self._origins = {}, set(), {}

    def entries(self) -> Iterator[Entry]:
        for entry in sorted(self._letters.values(), key=_age, reverse=True):
            origin, replays = self._origins.get(entry.key, ("", 0))
            yield replace(entry, replayed=entry.key in self._replayed, origin=origin, replays=replays)

    def counts(self) -> dict[str, int]:
        return dict(Counter(entry.reason for entry in self._letters.values()))

    def record(self, audit: Audit) -> None:
        self._audits[audit.name] = audit

    def audits(self) -> list[Audit]:
        return sorted(self._audits.values(), key=lambda audit: (audit.at, audit.name), reverse=True)

    def stops(self, limits: str) -> int:
        return self._stops[limits]

    def stop(self, limits: str) -> None:
        self._stops[limits] += 1

    def resume(self) -> None:
        self._stops.clear()


def _age(entry: Entry) -> tuple[int, str]:
    return entry.failed_at, entry.key


def _key(job: Job) -> str:
    """Its id; its coordinate where it could not be decoded."""
    record = job.record
    return job.id or f"{record.topic}:{record.partition}:{record.offset}"


def _coordinate(record: Record) -> tuple[TopicPartition, int]:
    return TopicPartition(record.topic, record.partition), record.offset
