"""From a window to batches: texts of like length together, so that little is computed on padding."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from streamer.records import Batch, Job
from streamer.sizing import TokenBudget

_by_length = attrgetter("tokens")


def plan(jobs: Iterable[Job], budget: TokenBudget) -> list[Batch]:
    """Batches within the budget, shortest texts first.

    The tokens of a batch count its padding: the longest text times the number of texts. A text longer than
    the whole budget gets a batch of its own. Order costs nothing here: the ledger restores it.
    """
    batches: list[Batch] = []
    bucket: list[Job] = []
    for job in sorted(jobs, key=_by_length):
        if bucket and (len(bucket) >= budget.max_texts or (len(bucket) + 1) * job.tokens > budget.tokens):
            batches.append(make_batch(bucket))
            bucket = []
        bucket.append(job)
    if bucket:
        batches.append(make_batch(bucket))
    return batches


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches in the place of one that failed. It holds at least two jobs."""
    middle = len(batch.jobs) // 2
    return make_batch(batch.jobs[:middle]), make_batch(batch.jobs[middle:])


def make_batch(jobs: list[Job]) -> Batch:
    """A batch of at least one job. Its tokens count the padding."""
    return Batch(jobs, len(jobs) * max(map(_by_length, jobs)))
