"""When the engine gives up: deadlines, and how many dead letters say that the data is not to blame."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NoReturn

from streamer.delays import RetryPolicy
from streamer.errors import DeadLetterLimit, TransientError
from streamer.protocols import DeadLetterQueue
from streamer.records import DeadLetter, Job, Release, Result

WAIT = RetryPolicy()
RECENT = 200  # records that the share of dead letters is taken of
FEW = 10  # what it is taken of at least, and a row at least, when run after run has ended at them

log = logging.getLogger(__name__)


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

    A supervisor starts what has ended again, and nobody has mended it. So `memory` knows of ends at these
    limits, and each start lets half as much through as the one before: FEW dead letters in the end, since the
    records that come first may deserve it. A result that has arrived makes the row as long as it was; when
    RECENT records have passed too, all is forgotten. Whoever sets other limits starts anew.
    """

    def __init__(self, limits: Limits, memory: DeadLetterQueue) -> None:
        self._limits = limits
        self._memory = memory
        self._name = f"{limits.dead_letters_in_a_row}/{limits.dead_letter_share}"
        self._stops = 0
        with _if_redis_is_there():
            self._stops = memory.stops(self._name)
        row = limits.dead_letters_in_a_row
        self._longest_row = row and max(min(FEW, row), row >> self._stops)
        self._window = max(FEW, RECENT >> self._stops)
        self._all = limits.dead_letters_counted == "all"
        self._seen = 0
        self._row = 0
        self._refused = 0  # the same, of results that their topics did not take
        self._recent: deque[tuple[int, str]] = deque()  # the dead in the window: number and reason

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
        """They are written: what a result among them says of the system."""
        if not (self._refused or self._stops):
            return
        if any(isinstance(job.settled, Result) for release in releases for job in release.jobs):
            self._refused = 0
            self._longest_row = self._limits.dead_letters_in_a_row
            if self._stops and self._seen >= RECENT:
                with _if_redis_is_there():
                    self._memory.resume()
                    self._stops, self._window = 0, RECENT

    def _judge(self, row: int, newest: DeadLetter) -> None:
        self._recent.append((self._seen, newest.reason))
        while self._recent[0][0] <= self._seen - self._window:
            self._recent.popleft()
        if self._longest_row is not None and row > self._longest_row:
            self._stop(f"{row} in a row", "dead_letters_in_a_row", self._limits.dead_letters_in_a_row)
        dead, share = len(self._recent), self._limits.dead_letter_share
        if share is not None and self._seen >= self._window and dead > share * self._window:
            self._stop(f"{dead} of the last {self._window} records", "dead_letter_share", share)

    def _stop(self, found: str, key: str, limit: float | None) -> NoReturn:
        with _if_redis_is_there():
            self._memory.stop(self._name)
        reasons = Counter(reason for _, reason in self._recent).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        before = f", and {self._stops} runs before ended so: fewer are let through" if self._stops else ""
        raise DeadLetterLimit(
            f"{found} (limits.{key} is {limit:g}{before}): {listed}. The newest were neither written nor "
            "committed. Mend what makes them fail and start again: they are read again. If the records are "
            f"to blame and belong into the dead-letter topic, raise limits.{key}, or set it to null"
        )


@contextmanager
def _if_redis_is_there() -> Iterator[None]:
    try:
        yield
    except TransientError as error:
        log.warning("ends at the dead-letter limit are not remembered: %s", error)
