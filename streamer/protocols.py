"""The five protocols that have more than one implementation, and what the engine wants of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from streamer.errors import RecordError
from streamer.records import Classification, Encoding, Job, Record, Release, TopicPartition

T_co = TypeVar("T_co", covariant=True)


class Assignment(Protocol):
    """What a source tells of its partitions. Called inside `Source.poll` and `Source.close` only."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None: ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """They are about to go: finish what is nearly done and forget the rest.

        What `Source.commit` is told here is committed before they go.
        """

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """They are gone already: forget all, commit nothing."""


class Source(Protocol):
    """Where records come from. One thread owns it."""

    def subscribe(self, assignment: Assignment) -> None: ...

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        """Up to `max_records` records, in offset order within a partition.

        Waits `timeout` seconds for the first. Raises what the assignment's callbacks raised, and FatalError
        when the broker wants this member gone.
        """

    def ends(self) -> Mapping[TopicPartition, int]:
        """The partitions read to their end, and the offset there. One that has more to read is absent."""

    def exhausted(self) -> bool:
        """Ask whether all that is there was read. False too when nobody answers, after a second or so."""

    def lag(self) -> Mapping[TopicPartition, int]:
        """Records between the position and the end of each partition; one whose lag is unknown is absent."""

    def pause(self) -> None:
        """Deliver nothing until `resume`; `poll` goes on serving the group."""

    def resume(self) -> None: ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit these offsets soon, without waiting; the newest of a partition wins."""

    def flush(self, timeout: float) -> None:
        """Commit at once what `commit` was told, and wait, `timeout` seconds at most.

        Raises TransientError when it did not happen. Not for the callbacks of `Assignment`.
        """

    def close(self) -> None: ...


class Sink(Protocol):
    """Where settled jobs go: results to one place, dead letters to another.

    `refused` has the jobs whose result, or delay, its topic does not take; they are dead letters by now, and
    none is written before the next `poll`. Who has read them takes them out.
    """

    refused: list[Job]

    def publish(self, release: Release) -> None:
        """Take a release over, in order. It is written when `release.unacknowledged` has come back to 0.

        A sink that commits the offsets together with what it writes says so in `release.committed`.
        """

    def poll(self, timeout: float) -> None:
        """Serve acknowledgements; waits up to `timeout` seconds for one. Raises FatalError."""

    def close(self) -> None: ...


class Backend(Protocol):
    """A model: tokenizes on the engine's thread, infers on the worker's."""

    name: str
    revision: str

    def encode(self, texts: Sequence[str]) -> Sequence[Encoding | RecordError]:
        """For each text what `infer` wants to find in `job.encoded`, or why it has nothing to work with.

        What it raises is about one of the texts: they come again, each alone.
        """

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        """What the device computes on, in tokens, for a batch: its `tokens`, or more where it is padded.

        `longest` is the number of tokens of its longest text.
        """

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        """A value or an error for each job, in their order. What it raises is about the whole batch."""


class Answer(Protocol[T_co]):
    """An answer that is on its way. One that is not wanted any more may be forgotten."""

    def get(self, timeout: float) -> T_co | None:
        """The answer, once; None while it is not there, after `timeout` seconds at most.

        Raises TransientError where there will be none: whether it was done, nobody knows.
        """


class Deduplicator(Protocol):
    """Remembers which record was the first to bring an id. Every method may raise TransientError."""

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        """For each job None (go on) or why it is skipped.

        "same_window": one of these jobs has its id. "duplicate": another record has. "redelivered": it has
        its own claim, and is written.

        The answer sets `suspect` on a job that goes on and that another run has claimed before.
        """

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        """All below these offsets is written: a record there that holds its claim may be skipped.

        The answer is True: it is noted.
        """

    def give_back(self, jobs: Iterable[Job]) -> None:
        """They are dead, or delayed: another record, such as their replay, may claim their ids."""

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What is unfinished below these offsets is left to the next owner, by one that lives.

        The next `claim` raises `lane.survived` of their jobs to it, once.
        """

    def begin(self, job: Job) -> int:
        """Count a start of this suspect: how many there were, this one included."""

    def end(self, job: Job) -> None:
        """It came back, whatever came of it: forget its starts."""

    def look(self, now: float) -> None:
        """Nobody asks for anything: see now and then whether it is there, for the metrics. Never raises."""


class DeadLetterQueue(Protocol):
    """The index of dead letters. The topic is the truth; this is for looking things up."""

    def add(self, jobs: Sequence[Job]) -> None:
        """They are in the dead-letter topic. May raise TransientError; the index can be rebuilt."""

    def stops(self, limits: str) -> int:
        """How many runs in a row have ended at these limits of dead letters. May raise TransientError."""

    def stop(self, limits: str) -> None:
        """One more ends at them. May raise TransientError."""

    def resume(self) -> None:
        """One goes well: forget those that ended, at whatever limits. May raise TransientError."""
