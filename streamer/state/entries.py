"""What the index keeps of a dead letter; the worker and `streamer dlq rebuild` know the same of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from streamer.records import DeadLetter, Job

LONGEST = 200  # characters of an id or a message: the topic has the whole


class Entry(Struct, frozen=True, gc=False, omit_defaults=True):
    """A dead letter, by the coordinate of its record. Times are milliseconds since the epoch.

    The last three come from the replays, which the topic notes beside its letters: whether this letter was
    replayed, and, when its record was itself published by a replay, how many there were, and of what.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    error: str = ""
    message: str = ""
    stage: str = ""
    attempts: int = 0
    model: str = ""
    failed_at: int = 0
    id: str = ""
    replayed: bool = False
    replays: int = 0
    origin: str = ""

    @property
    def source(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @property
    def key(self) -> str:
        """The coordinate with the time: a topic that was created anew has the same coordinates again."""
        return f"{self.source}@{self.timestamp}"

    @property
    def status(self) -> str:
        return "replayed" if self.replayed else "dead"


class Audit(Struct, frozen=True, gc=False, kw_only=True):
    """Who replayed or purged what, and when."""

    name: str
    action: str
    at: int
    by: str
    filter: str
    count: int


def entries_of(jobs: Sequence[Job]) -> list[Entry]:
    """The entries of those that are dead; the others have none."""
    entries = []
    for job in jobs:
        record, dead = job.record, job.settled
        if isinstance(dead, DeadLetter):
            entries.append(
                Entry(
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    timestamp=record.timestamp,
                    reason=dead.reason,
                    error=dead.error,
                    message=shorten(dead.message),
                    stage=dead.stage,
                    attempts=dead.attempts,
                    model=dead.model,
                    failed_at=dead.failed_at,
                    id=shorten(job.id),
                )
            )
    return entries


def shorten(text: str) -> str:
    """On one line, cut, and encodable."""
    return " ".join(text.split())[:LONGEST].encode(errors="replace").decode()
