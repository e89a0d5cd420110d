"""When the engine gives up: deadlines, and how many dead letters say that the data is not to blame."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streamer.delays import RetryPolicy
from streamer.errors import DeadLetterLimit
from streamer.records import DeadLetter, Job, Release, Result

WAIT = RetryPolicy()
RECENT = 200  # records that the share of dead letters is taken of


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines of the engine, in seconds, and how many records may die; None allows any number."""

    drain: float = 20.0
    revoke: float = 5.0
    hang: float = 300.0
    max_attempts: int = 3
    dead_letter_share: float | None = None
    dead_letters_in_a_row: int | None = None
    dead_letters_counted: Literal["all", "processing"] = "all"
    retries: RetryPolicy = WAIT


class DeadLetterGuard:
    """Looks at what is about to be published, in order, and refuses what looks like a broken system.

    What it has let through as a result may be dead all the same, if its topic does not take it: `refuse`
    hears of those before their letters are written. For their row only results count that have arrived.

    >>> from streamer.records import Skip
    >>> DeadLetterGuard(Limits()).check([])
    """

    def __init__(self, limits: Limits) -> None:
        self._share = limits.dead_letter_share
        self._longest_row = limits.dead_letters_in_a_row
        self._all = limits.dead_letters_counted == "all"
        self._seen = 0
        self._row = 0
        self._refused = 0  # the same, of results that their topics did not take
        self._recent: deque[tuple[int, str]] = deque()  # the dead among the last RECENT: number and reason

    def check(self, jobs: Sequence[Job]) -> None:
        """Raises DeadLetterLimit; then none of `jobs` may be published."""
        kinds = {type(job.settled) for job in jobs}
        if DeadLetter not in kinds:
            self._seen += len(jobs)
            self._row = 0 if Result in kinds else self._row
            return
        for job in jobs:
            self._seen += 1
            settled = job.settled
            if type(settled) is Result:
                self._row = 0
            elif type(settled) is DeadLetter and (self._all or settled.stage != "decode"):
                self._row += 1
                self._judge(self._row, settled)

    def refuse(self, jobs: Sequence[Job]) -> None:
        """They are dead, and were not when `check` saw them. Raises DeadLetterLimit as that does."""
        for job in jobs:
            self._refused += 1
            assert isinstance(job.settled, DeadLetter)
            self._judge(self._refused, job.settled)

    def arrived(self, releases: Sequence[Release]) -> None:
        """They are written: a result among them ends a row of refused ones."""
        if self._refused and any(isinstance(job.settled, Result) for one in releases for job in one.jobs):
            self._refused = 0

    def _judge(self, row: int, newest: DeadLetter) -> None:
        self._recent.append((self._seen, newest.reason))
        while self._recent[0][0] <= self._seen - RECENT:
            self._recent.popleft()
        if self._longest_row is not None and row > self._longest_row:
            self._stop(f"{row} in a row", "dead_letters_in_a_row", self._longest_row)
        dead = len(self._recent)
        if self._share is not None and self._seen >= RECENT and dead > self._share * RECENT:
            self._stop(f"{dead} of the last {RECENT} records", "dead_letter_share", self._share)

    def _stop(self, found: str, key: str, limit: float) -> None:
        reasons = Counter(reason for _, reason in self._recent).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        raise DeadLetterLimit(
            f"{found} (limits.{key} is {limit:g}): {listed}. The newest were neither written nor committed. "
            "Mend what makes them fail and start again: they are read again. If the records are to blame and "
            f"belong into the dead-letter topic, raise limits.{key}, or set it to null"
        )
