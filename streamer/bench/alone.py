"""The model without Kafka: texts in memory, all cores to itself. What the line is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from streamer.bench.turns import Incomplete, Turn
from streamer.errors import RecordError
from streamer.ledger import Lane
from streamer.planner import make_batch, plan
from streamer.protocols import Backend
from streamer.records import Batch, Classification, Job, Record, TopicPartition
from streamer.sizing import TokenBudget

FIXED = 32
_RECORD = Record("texts", 0, 0, 0, None, None, [])
_LANE = Lane(TopicPartition("texts", 0))

Cut = Callable[[list[Job]], Iterable[Batch]]


class Alone:
    """What the engine does with a window: tokenize, plan, infer, one after the other."""

    def __init__(self, backend: Backend, budget: Callable[[], TokenBudget], *, window: int) -> None:
        self._backend = backend
        self.budget = budget()
        self._window = window

    def __call__(self, texts: Sequence[str]) -> Turn:
        """Goes on with the budget that the last turn has found."""
        return self._pass(texts, lambda jobs: plan(jobs, self.budget))

    def fixed(self, texts: Sequence[str]) -> Turn:
        """Batches of 32 texts as they come."""
        cost = self._backend.cost
        return self._pass(
            texts,
            lambda jobs: (make_batch(jobs[at : at + FIXED], cost) for at in range(0, len(jobs), FIXED)),
        )

    def _pass(self, texts: Sequence[str], cut: Cut) -> Turn:
        turn = Turn([])
        began = time.perf_counter()
        for start in range(0, len(texts), self._window):
            jobs = self._tokenized(texts[start : start + self._window])
            for batch in cut(jobs):
                started = time.perf_counter()
                values = self._backend.infer(batch.jobs)
                now = time.perf_counter()
                self.budget.observe(batch, now - started)
                turn.services.append(now - started)
                turn.budgets.append((now - began, self.budget.tokens))
                turn.computed += batch.tokens
                for job, value in zip(batch.jobs, values, strict=True):
                    if not isinstance(value, Classification):
                        raise Incomplete(f"the model refuses a text of {len(job.text)} characters: {value}")
                    job.id = value.label
            turn.labels += [job.id for job in jobs]
            turn.tokens += sum(job.tokens for job in jobs)
            turn.squares += sum(job.tokens**2 for job in jobs)
        return turn

    def _tokenized(self, texts: Sequence[str]) -> list[Job]:
        jobs = []
        for text, found in zip(texts, self._backend.encode(texts), strict=True):
            if isinstance(found, RecordError):
                raise Incomplete(f"the model refuses a text of {len(text)} characters: {found}")
            jobs.append(Job(_RECORD, _LANE, 0, text=text, tokens=found.tokens, encoded=found.data))
        return jobs
