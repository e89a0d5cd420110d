"""After a failure that passes: who waits, and for how long?

The batch that failed does, longer with each try; others go on meanwhile, for the ledger restores the order.
When the backend has answered nobody since it was offered this batch, it may be away: then nothing is offered
to it until a wait of the line's own is over, and one batch, another one, finds out. Batches that were under
way together fail together: to the line that is one failure, however many threads there are.
"""

from __future__ import annotations

import logging

from streamer.backoff import Backoff
from streamer.errors import TransientError
from streamer.records import Batch

log = logging.getLogger(__name__)


class Recovery:
    """Counts answers and failures, and thereby knows what came between a batch's offer and its end."""

    def __init__(self) -> None:
        self.line = Backoff()
        self._answers = self._failures = 0

    def allows(self, now: float, in_flight: int) -> bool:
        """Whether a batch may be offered, with so many on their way."""
        return self.line.ready(now) and not (self.line.failures and in_flight)

    def offered(self, batch: Batch) -> None:
        batch.before = self._answers, self._failures

    def answered(self) -> None:
        """The backend has said something of a record, whatever it was."""
        self._answers += 1
        self.line.succeed()

    def failed(self, batch: Batch, reason: TransientError, now: float) -> float:
        """When the batch may be offered again, if the line is ready then."""
        wait = self.line.wait(max(job.attempts for job in batch.jobs) - 1)
        answers, failures = batch.before
        if self._answers > answers:
            log.warning("a batch of %d waits %.2f s, others go on: %s", len(batch.jobs), wait, reason)
        elif self._failures == failures:
            self._failures += 1
            log.warning("the device waits %.2f s, then goes on: %s", self.line.fail(now), reason)
        # Not at the very moment when the line goes on: another batch is to have its turn before.
        return max(now + wait, self.line.until + self.line.wait(0))
