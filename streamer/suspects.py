"""Records that an earlier run left unfinished: one of them may have killed it.

A claim that is one's own and not written was held by an earlier run. Whoever leaves in good order notes how
far it has read; what lies beyond was in the hands of one that died, and is a suspect. Suspects are tokenized
and inferred one by one, with nothing else on the device, and each start is counted in Redis first. The count
of the record that kills grows with each death; that of a bystander is deleted when it comes back, or when the
worker leaves by a decision of its own. While nothing dies, this costs a look at each batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from streamer.backoff import Backoff
from streamer.errors import RecordError, TransientError
from streamer.protocols import Deduplicator
from streamer.records import Batch, Job
from streamer.verdicts import Judge

log = logging.getLogger(__name__)


class Suspects:
    """Sends suspects one by one, and buries the one that has been started `max_attempts` times."""

    def __init__(
        self,
        deduplicator: Deduplicator,
        judge: Judge,
        backoff: Backoff,
        clock: Callable[[], float],
        max_attempts: int,
    ) -> None:
        self._deduplicator = deduplicator
        self._judge = judge
        self._backoff = backoff
        self._clock = clock
        self._max_attempts = max_attempts
        self._started: Job | None = None  # the suspect whose start is counted and not yet taken back

    def part(self, jobs: list[Job]) -> tuple[list[Job], list[Batch]]:
        """The tokenized jobs, and of each suspect a batch of its own, which `admit` tokenizes."""
        found = [job for job in jobs if job.suspect]
        if not found:
            return self._judge.tokenize(jobs), []
        for job in found:
            # Left in good order, or by this very process, which lives: a partition was away and came back.
            job.suspect = job.record.offset >= job.lane.survived
        alone = [Batch([job], 0) for job in found if job.suspect]
        if alone:
            log.warning("an earlier run left %d records unfinished: they go one by one", len(alone))
        others = [job for job in jobs if not job.suspect]
        return self._judge.tokenize(others), alone

    def admit(self, batch: Batch, in_flight: int) -> bool:
        """Whether the batch may go to the device now. One that comes out empty is dead."""
        job = batch.jobs[0]
        if not job.suspect and self._started is None:
            return True
        if in_flight:
            return False  # what runs beside a suspect would be suspected with it
        try:
            self._take_back()
            if not job.suspect:
                return True
            starts = self._deduplicator.begin(job)
        except TransientError as error:
            log.warning("the next suspect waits %.2f s: %s", self._backoff.fail(self._clock()), error)
            return False
        if starts < self._max_attempts:
            self._started = job
            batch.jobs = self._judge.tokenize([job])
            batch.tokens = job.tokens
            return True
        # The first start, among others, is not in the count; this one is, and does not happen. The count
        # stays: until the dead letter is committed, another death would bring the record back.
        job.attempts += self._max_attempts
        killed = RecordError("kills_the_worker", f"{self._max_attempts} workers died while they had it")
        self._judge.bury(job, killed, "infer")
        batch.jobs = []
        return True

    def settle(self) -> None:
        """What was on the device has come back, or its worker leaves: it killed nobody."""
        try:
            self._take_back()
        except TransientError as error:
            log.warning("the start of a suspect is still counted: %s", error)

    def _take_back(self) -> None:
        if self._started is not None:
            self._deduplicator.end(self._started)
            self._started = None
