"""What becomes of a job: a result, a dead letter, a skip, or another try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from streamer.errors import DeviceError, FatalError, OutOfMemory, RecordError, TransientError
from streamer.metrics import Metrics
from streamer.planner import halve, make_batch
from streamer.protocols import Backend
from streamer.records import Batch, Coordinate, DeadLetter, Job, Outcome, Result
from streamer.sizing import TokenBudget

log = logging.getLogger(__name__)


class Judge:
    """Settles jobs: the only place that decides what a failure means."""

    def __init__(
        self, backend: Backend, budget: TokenBudget, metrics: Metrics, wall: Callable[[], float] = time.time
    ) -> None:
        self._backend = backend
        self._budget = budget
        self._metrics = metrics
        self._wall = wall

    def tokenize(self, jobs: list[Job]) -> list[Job]:
        """Fill in `tokens` and `encoded`; a job whose text the tokenizer refuses is dead and left out."""
        try:
            encoded = self._backend.encode([job.text for job in jobs])
        except FatalError:
            raise
        except Exception as error:
            if len(jobs) == 1:
                self.bury(jobs[0], error, "tokenize")
                return []
            return [job for alone in jobs for job in self.tokenize([alone])]
        for job, (tokens, ids) in zip(jobs, encoded, strict=True):
            job.tokens, job.encoded = tokens, ids
        return jobs

    def judge(self, outcome: Outcome) -> tuple[list[Batch], TransientError | None]:
        """Settle the jobs of a batch. Returns what is to be offered again, and why it has to wait first.

        A batch that failed comes back in halves, at once; what failed for a reason that may pass comes back
        as it was, later. Raises FatalError.
        """
        batch, error = outcome.batch, outcome.error
        if error is None:
            return self._settle(outcome)
        self._metrics.failed_batches[type(error).__name__] += 1
        if isinstance(error, FatalError):
            raise error
        if isinstance(error, TransientError):
            return [batch], error
        for job in batch.jobs:
            job.attempts += 1
        if isinstance(error, OutOfMemory):
            self._budget.shrink(batch.tokens)
        if len(batch.jobs) == 1:
            self.bury(batch.jobs[0], error, "infer")
            return [], None
        log.warning("batch of %d failed, halved: %s", len(batch.jobs), type(error).__name__)
        return list(halve(batch, self._budget.cost)), None

    def bury(self, job: Job, error: Exception, stage: str) -> None:
        """Make a dead letter of a job. The message of a foreign error may quote data: it is not kept."""
        if isinstance(error, RecordError):
            reason, message = error.reason, error.detail
        elif isinstance(error, OutOfMemory):
            reason, message = "out_of_memory", error.detail
        else:
            reason, message = f"{stage}_failed", f"{type(error).__name__} in {stage}"
        job.settled = DeadLetter(
            reason,
            type(error).__name__,
            message,
            stage,
            max(1, job.attempts),
            self._backend.name,
            int(self._wall() * 1000),
        )
        record = job.record
        log.warning(
            "dead letter %s at %s[%d]@%d: %s", reason, record.topic, record.partition, record.offset, message
        )

    def _settle(self, outcome: Outcome) -> tuple[list[Batch], TransientError | None]:
        batch, values = outcome.batch, outcome.values
        if len(values) != len(batch.jobs):
            raise DeviceError(f"{len(values)} outputs for a batch of {len(batch.jobs)} texts")
        self._budget.observe(batch.tokens, outcome.seconds)
        self._count(outcome)
        name, revision, processed_at = self._backend.name, self._backend.revision, int(self._wall() * 1000)
        again: list[Job] = []
        reason: TransientError | None = None
        for job, value in zip(batch.jobs, values, strict=True):
            if isinstance(value, Exception):
                job.attempts += 1
                if isinstance(value, TransientError):
                    again.append(job)
                    reason = value
                else:
                    self.bury(job, value, "infer")
                continue
            record = job.record
            source = Coordinate(record.topic, record.partition, record.offset, record.timestamp)
            job.settled = Result(
                job.id, value.label, value.score, value.scores, name, revision, source, processed_at, job.meta
            )
        return [make_batch(again, self._budget.cost)] if again else [], reason

    def _count(self, outcome: Outcome) -> None:
        metrics, jobs = self._metrics, outcome.batch.jobs
        metrics.batches += 1
        metrics.texts += len(jobs)
        tokens = [job.tokens for job in jobs]
        metrics.tokens += sum(tokens)
        metrics.computed_tokens += outcome.batch.tokens
        metrics.batch_texts.observe(len(jobs))
        metrics.batch_tokens.observe(outcome.batch.tokens)
        metrics.batch_seconds.observe(outcome.seconds)
        metrics.budget_tokens = self._budget.tokens
        if metrics.flops_of_text is not None and metrics.flops is not None:
            linear, quadratic = metrics.flops_of_text
            metrics.flops += linear * sum(tokens) + quadratic * sum(n * n for n in tokens)
