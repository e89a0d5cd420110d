"""What the line asks of deduplication and of the dead-letter index, and how it waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from streamer.backoff import Backoff
from streamer.errors import TransientError
from streamer.metrics import Metrics
from streamer.protocols import Answer, DeadLetterQueue, Deduplicator
from streamer.records import DeadLetter, Delay, Job, Release, Result, Skip, TopicPartition

log = logging.getLogger(__name__)


class Claims:
    """Claims the ids of a window, and marks what is published. While it cannot, the same work waits here."""

    def __init__(
        self,
        deduplicator: Deduplicator,
        dead_letters: DeadLetterQueue,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._deduplicator = deduplicator
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._clock = clock
        self._jobs: list[Job] = []
        self._claimed: Answer[list[str | None]] | None = None
        self._claiming = Backoff()
        self._marked: tuple[int, Tally, Answer[bool]] | None = None
        self._marking = Backoff()

    def __len__(self) -> int:
        """How many jobs of a closed window wait for their claims."""
        return len(self._jobs)

    @property
    def under_way(self) -> bool:
        """Whether they are asked for, and `take` has something to wait for."""
        return self._claimed is not None

    @property
    def marking(self) -> bool:
        """Whether a mark is under way."""
        return self._marked is not None

    @property
    def retry_at(self) -> float:
        return self._claiming.until

    def ask(self, jobs: Sequence[Job]) -> None:
        """Claim the jobs of a window that has closed, after the ones before were taken."""
        self._jobs = list(jobs)
        self._ask()

    def take(self, timeout: float) -> list[Job]:
        """The jobs to go on with; duplicates are settled. None at all while claims are away, or on their way.

        Waits up to `timeout` seconds for them.
        """
        if self._claimed is None:
            self._ask()
        asked_before = self._claiming.failures > 0
        try:
            verdicts = None if self._claimed is None else self._claimed.get(timeout)
        except TransientError as error:
            self._claimed = None
            self._wait("claim", self._claiming, error)
            return []
        if verdicts is None:
            return []
        self._claiming.succeed()
        jobs, self._jobs, self._claimed = self._jobs, [], None
        mine: list[Job] = []
        for job, verdict in zip(jobs, verdicts, strict=True):
            if verdict is not None:
                job.settled = Skip(verdict)
            elif not job.lane.closed:
                mine.append(job)
        if asked_before:
            # A call whose answer was lost finds its own claims: nobody has died of them. Only what the very
            # first call for a partition finds may be an earlier run's as well.
            for job in mine:
                job.suspect = job.suspect and not job.lane.claimed
        for lane in {job.lane for job in mine}:
            lane.claimed = True
        return mine

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Say that what is unfinished below these offsets was left in good order: it killed nobody."""
        try:
            self._deduplicator.leave(offsets)
        except TransientError as error:
            log.warning("the next owner will infer what is left one by one: %s", error)

    def look(self, now: float) -> None:
        """No records come. While some wait for their claims, it is known how Redis is."""
        if not self._jobs:
            self._deduplicator.look(now)

    def drop(self) -> None:
        """Forget the jobs that wait: they will be read again."""
        self._jobs, self._claimed = [], None

    def mark(self, written: Sequence[Release], timeout: float) -> int:
        """Mark what is written, give the claims of the dead and the delayed back.

        Waits up to `timeout` seconds for the answer. Returns how many of these releases, from the first, are
        marked by now. The others come again, in the same order, with what has been written since behind them.
        """
        try:
            if self._marked is None:
                if not written or not self._marking.ready(self._clock()):
                    return 0
                self._marked = self._mark(written)
            count, tally, answer = self._marked
            if answer.get(timeout) is None:
                return 0
        except TransientError as error:
            self._marked = None
            self._wait("mark", self._marking, error)
            return 0
        self._marked = None
        self._marking.succeed()
        self._count(tally)
        return count

    def _ask(self) -> None:
        self._jobs = [job for job in self._jobs if not job.lane.closed]
        if not self._jobs or not self._claiming.ready(self._clock()):
            return
        try:
            self._claimed = self._deduplicator.claim(self._jobs)
        except TransientError as error:
            self._wait("claim", self._claiming, error)

    def _mark(self, written: Sequence[Release]) -> tuple[int, Tally, Answer[bool]]:
        tally = Tally.of(written)
        # These first: once marked, a claim that they still held would make their replay a redelivery.
        if tally.dead or tally.delayed:
            self._deduplicator.give_back(tally.dead + tally.delayed)
        return len(written), tally, self._deduplicator.mark(tally.offsets)

    def _count(self, tally: Tally) -> None:
        self._metrics.results += tally.results
        self._metrics.skipped.update(tally.skipped)
        self._metrics.delayed += len(tally.delayed)
        if tally.dead:
            self._index(tally.dead)

    def _index(self, dead: list[Job]) -> None:
        """The topic holds them already: an index that is away costs a look-up, not a record."""
        self._metrics.dead.update(job.settled.reason for job in dead if isinstance(job.settled, DeadLetter))
        try:
            self._dead_letters.add(dead)
        except TransientError as error:
            self._metrics.retries["index"] += 1
            log.warning("%d dead letters are not indexed: %s", len(dead), error)

    def _wait(self, stage: str, backoff: Backoff, error: TransientError) -> None:
        self._metrics.retries[stage] += 1
        seconds = backoff.fail(self._clock())
        log.warning("%s waits %.2f s, then tries again (%d): %s", stage, seconds, backoff.failures, error)


class Tally(Struct, gc=False):
    """What is in some releases that are written, and how far they reach."""

    results: int
    dead: list[Job]
    delayed: list[Job]
    skipped: list[str]
    offsets: dict[TopicPartition, int]

    @classmethod
    def of(cls, written: Sequence[Release]) -> Tally:
        tally = cls(0, [], [], [], {})
        for release in written:
            for partition, offset in release.written.items():
                tally.offsets[partition] = max(offset, tally.offsets.get(partition, -1))
            for job in release.jobs:
                if type(job.settled) is Result:
                    tally.results += 1
                elif type(job.settled) is DeadLetter:
                    tally.dead.append(job)
                elif type(job.settled) is Delay:
                    tally.delayed.append(job)
                elif type(job.settled) is Skip:
                    tally.skipped.append(job.settled.reason)
        return tally
