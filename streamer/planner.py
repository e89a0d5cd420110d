"""From windows to batches: texts of like length together, so that little is computed on padding."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter

from streamer.records import Batch, Job
from streamer.sizing import Cost, TokenBudget

_by_length = attrgetter("tokens")


class Plan:
    """What waits for the worker. A batch is cut when there is room for it, by the budget of that moment.

    A window goes shortest texts first, and to its end before the next. Order costs nothing here: the ledger
    restores it. Jobs whose partition is gone are left out. The plan is true while there is something to offer
    now: what was put off for `later` does not count.
    """

    def __init__(self, budget: TokenBudget) -> None:
        self._budget = budget
        self.clear()

    def __bool__(self) -> bool:
        return bool(self._ready or self._windows)

    def __len__(self) -> int:
        """How many jobs wait."""
        waiting = sum(len(batch.jobs) for _, _, batch in self._later)
        return self._texts + waiting + sum(len(batch.jobs) for batch in self._ready)

    @property
    def wakes_at(self) -> float:
        """When the first batch that waits may go on."""
        return self._later[0][0] if self._later else math.inf

    def holds(self, batches: int) -> bool:
        """Is there work for so many batches? Not quite, where a text is longer than the budget."""
        more = batches - len(self._ready)
        return (
            len(self._windows) >= more
            or self._texts > (more - 1) * self._budget.max_texts
            or self._tokens > (more - 1) * self._budget.ceiling
        )

    def add(self, jobs: Iterable[Job], alone: Iterable[Batch] = ()) -> None:
        """A window: batches that are to stay as they are, and tokenized jobs."""
        self._ready.extend(alone)
        if window := deque(sorted(jobs, key=_by_length)):
            self._windows.append(window)
            self._texts += len(window)
            self._tokens += sum(job.tokens for job in window)

    def again(self, batches: Sequence[Batch]) -> None:
        """These go first, as they are."""
        self._ready.extendleft(reversed(batches))

    def later(self, batches: Iterable[Batch], at: float) -> None:
        """These wait, as they are, until `wake` is called at that time or after it."""
        for batch in batches:
            heappush(self._later, (at, next(self._numbers), batch))

    def wake(self, now: float) -> None:
        """What has waited long enough goes first."""
        while self.wakes_at <= now:
            self._ready.appendleft(heappop(self._later)[2])

    def next(self) -> Batch | None:
        """A batch of at least one job, which leaves the plan."""
        while self:
            batch = self._ready.popleft() if self._ready else self._cut()
            if not any(job.lane.closed for job in batch.jobs):
                return batch
            if jobs := [job for job in batch.jobs if not job.lane.closed]:
                return make_batch(jobs, self._budget.cost)
        return None

    def clear(self) -> None:
        """Forget all of it: it will be read again."""
        self._ready: deque[Batch] = deque()
        self._later: list[tuple[float, int, Batch]] = []  # a heap; the number is there for those of one time
        self._numbers = count()
        self._windows: deque[deque[Job]] = deque()
        self._texts = self._tokens = 0

    def _cut(self) -> Batch:
        window = self._windows[0]
        batch = cut(window, self._budget)
        self._texts -= len(batch.jobs)
        self._tokens -= sum(job.tokens for job in batch.jobs)
        if not window:
            self._windows.popleft()
        return batch


def plan(jobs: Iterable[Job], budget: TokenBudget) -> Iterator[Batch]:
    """The batches of one window, each cut when it is asked for."""
    window = deque(sorted(jobs, key=_by_length))
    while window:
        yield cut(window, budget)


def cut(window: deque[Job], budget: TokenBudget) -> Batch:
    """Take a batch within the budget off a window, which is not empty and in order of length.

    The tokens of a batch are what the device computes on, by `budget.cost`. A text longer than the whole
    budget gets a batch of its own.
    """
    size, cost = budget.next(), budget.cost
    limit = min(size, budget.ceiling)
    jobs = [window.popleft()]
    tokens = jobs[0].tokens
    while window and len(jobs) < budget.max_texts:
        job = window[0]
        if cost(len(jobs) + 1, tokens + job.tokens, job.tokens) > limit:
            break
        jobs.append(window.popleft())
        tokens += job.tokens
    filled = bool(window) and len(jobs) < budget.max_texts
    return Batch(jobs, cost(len(jobs), tokens, jobs[-1].tokens), size, filled)


def halve(batch: Batch, cost: Cost) -> tuple[Batch, Batch]:
    """Two batches in the place of one that failed. It holds at least two jobs."""
    middle = len(batch.jobs) // 2
    return make_batch(batch.jobs[:middle], cost), make_batch(batch.jobs[middle:], cost)


def make_batch(jobs: list[Job], cost: Cost) -> Batch:
    """A batch of at least one job."""
    lengths = [job.tokens for job in jobs]
    return Batch(jobs, cost(len(jobs), sum(lengths), max(lengths)))
