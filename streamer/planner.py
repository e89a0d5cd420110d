"""From a window to batches: texts of like length together, so that little is computed on padding."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from streamer.records import Batch, Job
from streamer.sizing import Cost, TokenBudget

_by_length = attrgetter("tokens")


def plan(jobs: Iterable[Job], budget: TokenBudget) -> list[Batch]:
    """Batches within the budget, shortest texts first.

    The tokens of a batch are what the device computes on, by `budget.cost`. A text longer than the whole
    budget gets a batch of its own. Order costs nothing here: the ledger restores it.
    """
    cost = budget.cost
    batches: list[Batch] = []
    bucket: list[Job] = []
    tokens = 0
    for job in sorted(jobs, key=_by_length):
        texts = len(bucket) + 1
        if bucket and (
            texts > budget.max_texts or cost(texts, tokens + job.tokens, job.tokens) > budget.tokens
        ):
            batches.append(make_batch(bucket, cost))
            bucket, tokens = [], 0
        bucket.append(job)
        tokens += job.tokens
    if bucket:
        batches.append(make_batch(bucket, cost))
    return batches


def halve(batch: Batch, cost: Cost) -> tuple[Batch, Batch]:
    """Two batches in the place of one that failed. It holds at least two jobs."""
    middle = len(batch.jobs) // 2
    return make_batch(batch.jobs[:middle], cost), make_batch(batch.jobs[middle:], cost)


def make_batch(jobs: list[Job], cost: Cost) -> Batch:
    """A batch of at least one job."""
    lengths = [job.tokens for job in jobs]
    return Batch(jobs, cost(len(jobs), sum(lengths), max(lengths)))
