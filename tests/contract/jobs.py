"""Settled jobs and releases for sinks and for the index of dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from streamer.errors import RecordError
from streamer.ledger import Lane
from streamer.protocols import Answer, Deduplicator
from streamer.records import Coordinate, DeadLetter, Job, Record, Release, Result, Skip, TopicPartition

T = TypeVar("T")


def claim(claims: Deduplicator, jobs: Sequence[Job]) -> list[str | None]:
    """Claim these, and wait for the answer."""
    return _wait(claims.claim(jobs))


def mark(claims: Deduplicator, offsets: Mapping[TopicPartition, int]) -> None:
    _wait(claims.mark(offsets))


def job(
    offset: int,
    partition: int = 0,
    *,
    id: str = "",
    lane: Lane | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> Job:
    """An open job; its value says where it came from."""
    at = TopicPartition("texts.in", partition)
    value = b"value %d" % offset
    record = Record(at.topic, partition, offset, 1_700_000_000_000 + offset, b"key", value, list(headers))
    return Job(record, lane or Lane(at), 0, id or f"{partition}-{offset}")


def undecodable(offset: int, partition: int = 0) -> Job:
    """A job that has no id, and never will."""
    one = job(offset, partition)
    one.id, one.defect = "", RecordError("invalid_json", "why")
    return one


def scored(job: Job, size: int = 0) -> Job:
    """With a result of about `size` bytes more than usual."""
    record = job.record
    source = Coordinate(record.topic, record.partition, record.offset, record.timestamp)
    job.settled = Result(job.id, "good" + "x" * size, 1.0, {"good": 1.0}, "m", "1", source, 5)
    return job


def dead(job: Job, reason: str = "refused") -> Job:
    job.settled = DeadLetter(reason, "RecordError", "why", "infer", 2, "m", 7)
    return job


def skipped(job: Job) -> Job:
    job.settled = Skip("duplicate")
    return job


def release(jobs: Iterable[Job]) -> Release:
    listed = list(jobs)
    return Release(listed, {job.lane: job.record.offset + 1 for job in listed}, 0)


def _wait(answer: Answer[T]) -> T:
    while (value := answer.get(0.1)) is None:
        pass
    return value
