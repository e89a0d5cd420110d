"""What becomes of a job: a result, a dead letter, a delay, a skip, or another try at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from streamer.delays import Past, RetryPolicy
from streamer.errors import DeviceError, FatalError, OutOfMemory, RecordError, TransientError
from streamer.metrics import Metrics
from streamer.occupancy import Occupancy
from streamer.planner import halve, make_batch
from streamer.protocols import Backend
from streamer.records import Batch, Coordinate, DeadLetter, Delay, Job, Outcome, Result
from streamer.sizing import TokenBudget

log = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What is to be offered again; why it has to wait first; whether the backend has said anything."""

    again: list[Batch]
    reason: TransientError | None = None
    answered: bool = True


class Judge:
    """Settles jobs: the only place that decides what a failure means."""

    def __init__(
        self,
        backend: Backend,
        budget: TokenBudget,
        metrics: Metrics,
        retries: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._budget = budget
        self._metrics = metrics
        self._retries = retries
        self._clock = clock
        self._wall = wall
        self._device = Occupancy()

    def decoded(self, jobs: list[Job]) -> list[Job]:
        """The jobs that could be decoded; of the others their claims say that nobody wrote them: they die."""
        for job in jobs:
            if job.defect is not None:
                self.bury(job, job.defect, "decode")
        return [job for job in jobs if job.defect is None]

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
        accepted = []
        for job, found in zip(jobs, encoded, strict=True):
            if isinstance(found, RecordError):
                self.bury(job, found, "tokenize")
                continue
            job.tokens, job.encoded, job.truncated = found
            accepted.append(job)
        return accepted

    def judge(self, outcome: Outcome) -> Verdict:
        """Settle the jobs of a batch.

        A batch that failed comes back in halves, at once; what failed for a reason that may pass comes back
        as it was, later, until its deadline. Raises FatalError.
        """
        batch, error = outcome.batch, outcome.error
        self._metrics.device_busy += self._device.add(outcome.started, outcome.ended)
        for job in batch.jobs:
            job.attempts += 1
        if error is None:
            return self._settle(outcome)
        self._metrics.failed_batches[type(error).__name__] += 1
        if isinstance(error, FatalError):
            raise error
        if isinstance(error, TransientError):
            again = [job for job in batch.jobs if not self._given_up(job, error)]
            return Verdict(self._batches(again), error, answered=False)
        if isinstance(error, OutOfMemory):
            self._budget.shrink(batch.tokens)
        if len(batch.jobs) == 1:
            self.bury(batch.jobs[0], error, "infer")
            return Verdict([])
        log.warning("batch of %d failed, halved: %s", len(batch.jobs), type(error).__name__)
        return Verdict(list(halve(batch, self._budget.cost)))

    def bury(self, job: Job, error: Exception, stage: str) -> None:
        """Make a dead letter of a job."""
        job.settled = why = self._why(job, error, stage)
        self._say("dead letter", job, why)

    def _given_up(self, job: Job, error: TransientError) -> bool:
        """Whether it was tried in place for long enough; then it is settled, as the policy has it."""
        now = self._clock()
        if job.failing_since is None:
            job.failing_since = now
        policy = self._retries
        if policy.then == "wait" or now - job.failing_since < policy.deadline:
            return False
        job.settled = why = self._why(job, error, "infer")
        level = Past.of(job.record).level
        if policy.then == "delay" and level < len(policy.delays):
            job.settled = Delay(level + 1, why.failed_at + 1000 * policy.delays[level], why)
            self._say(f"to be tried again in {policy.delays[level]} s:", job, why)
        else:
            self._say("dead letter", job, why)
        return True

    def _why(self, job: Job, error: Exception, stage: str) -> DeadLetter:
        """The message of a foreign error may quote data: it is not kept."""
        if isinstance(error, RecordError):
            reason, message = error.reason, error.detail
        elif isinstance(error, OutOfMemory):
            reason, message = "out_of_memory", error.detail
        elif isinstance(error, TransientError):
            reason, message = "unavailable", error.detail
        else:
            reason, message = f"{stage}_failed", f"{type(error).__name__} in {stage}"
        attempts = max(1, job.attempts) + Past.of(job.record).attempts
        failed_at = int(self._wall() * 1000)
        return DeadLetter(
            reason, type(error).__name__, message, stage, attempts, self._backend.name, failed_at
        )

    @staticmethod
    def _say(what: str, job: Job, why: DeadLetter) -> None:
        record = job.record
        at = record.topic, record.partition, record.offset
        log.warning("%s %s at %s[%d]@%d: %s", what, why.reason, *at, why.message)

    def _batches(self, again: list[Job]) -> list[Batch]:
        return [make_batch(again, self._budget.cost)] if again else []

    def _settle(self, outcome: Outcome) -> Verdict:
        batch, values = outcome.batch, outcome.values
        if len(values) != len(batch.jobs):
            raise DeviceError(f"{len(values)} outputs for a batch of {len(batch.jobs)} texts")
        self._budget.observe(batch, outcome.seconds)
        self._count(outcome)
        name, revision, processed_at = self._backend.name, self._backend.revision, int(self._wall() * 1000)
        again: list[Job] = []
        reason: TransientError | None = None
        for job, value in zip(batch.jobs, values, strict=True):
            if isinstance(value, Exception):
                if isinstance(value, TransientError):
                    if not self._given_up(job, value):
                        again.append(job)
                    reason = value
                else:
                    self.bury(job, value, "infer")
                continue
            record = job.record
            source = Coordinate(record.topic, record.partition, record.offset, record.timestamp)
            job.settled = Result(
                job.id,
                value.label,
                value.score,
                value.scores,
                name,
                revision,
                source,
                processed_at,
                job.meta,
                job.truncated,
            )
        answered = any(not isinstance(value, TransientError) for value in values)
        # With all of them settled there is nothing to wait for, unless nobody was answered.
        return Verdict(self._batches(again), reason if again or not answered else None, answered)

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
            each, linear, quadratic = metrics.flops_of_text
            metrics.flops += each * len(jobs) + linear * sum(tokens) + quadratic * sum(n * n for n in tokens)
