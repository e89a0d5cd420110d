"""What the line asks of deduplication and of the dead-letter index, and how it waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from streamer.backoff import Backoff
from streamer.errors import TransientError
from streamer.metrics import Metrics
from streamer.protocols import DeadLetterQueue, Deduplicator
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
        self._waiting: list[Job] = []
        self._claiming = Backoff()
        self._marking = Backoff()

    def __len__(self) -> int:
        """How many jobs of a closed window wait for their claims."""
        return len(self._waiting)

    @property
    def retry_at(self) -> float:
        return self._claiming.until

    def add(self, jobs: Sequence[Job]) -> None:
        """The jobs of a window that has closed."""
        self._waiting += jobs

    def take(self) -> list[Job]:
        """The jobs to go on with; duplicates are settled. None at all while claims are away."""
        if not self._waiting or not self._claiming.ready(self._clock()):
            return []
        jobs = [job for job in self._waiting if not job.lane.closed]
        asked_before = self._claiming.failures > 0
        try:
            verdicts = self._deduplicator.claim(jobs)
        except TransientError as error:
            self._wait("claim", self._claiming, error)
            return []
        self._claiming.succeed()
        self._waiting = []
        mine: list[Job] = []
        for job, verdict in zip(jobs, verdicts, strict=True):
            if verdict is None:
                # A call whose answer was lost finds its own claims: nobody has died of them.
                job.suspect = job.suspect and not asked_before
                mine.append(job)
            else:
                job.settled = Skip(verdict)
        return mine

    def leave(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Say that what is unfinished below these offsets was left in good order: it killed nobody."""
        try:
            self._deduplicator.leave(offsets)
        except TransientError as error:
            log.warning("the next owner will infer what is left one by one: %s", error)

    def look(self, now: float) -> None:
        """No records come. While some wait for their claims, it is known how Redis is."""
        if not self._waiting:
            self._deduplicator.look(now)

    def drop(self) -> None:
        """Forget the jobs that wait: they will be read again."""
        self._waiting = []

    def mark(self, written: Sequence[Release]) -> bool:
        """Mark what is written, give the claims of the dead and the delayed back. False while it cannot."""
        if not self._marking.ready(self._clock()):
            return False
        results = 0
        dead: list[Job] = []
        delayed: list[Job] = []
        skipped: list[str] = []
        offsets: dict[TopicPartition, int] = {}
        for release in written:
            for partition, offset in release.written.items():
                offsets[partition] = max(offset, offsets.get(partition, -1))
            for job in release.jobs:
                if type(job.settled) is Result:
                    results += 1
                elif type(job.settled) is DeadLetter:
                    dead.append(job)
                elif type(job.settled) is Delay:
                    delayed.append(job)
                elif type(job.settled) is Skip:
                    skipped.append(job.settled.reason)
        try:
            # These first: once marked, a claim that they still held would make their replay a redelivery.
            if dead or delayed:
                self._deduplicator.give_back(dead + delayed)
            if offsets:
                self._deduplicator.mark(offsets)
        except TransientError as error:
            self._wait("mark", self._marking, error)
            return False
        self._marking.succeed()
        self._metrics.results += results
        self._metrics.skipped.update(skipped)
        self._metrics.delayed += len(delayed)
        if dead:
            self._index(dead)
        return True

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
