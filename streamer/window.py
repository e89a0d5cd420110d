"""Where records wait to be scored together."""

from __future__ import annotations

from streamer.records import Job


class Window:
    """Closes on count, bytes or age, and early, after `linger` seconds, when the device has nothing to do.

    Deadlines are kept, never remainders: whoever asks twice gets the same answer. Times are seconds of the
    engine's clock.
    """

    def __init__(self, *, max_records: int, max_bytes: int, max_age: float, linger: float) -> None:
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.linger = linger
        self._jobs: list[Job] = []
        self._bytes = 0
        self.opened = 0.0  # when its first record came

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def full(self) -> bool:
        return len(self._jobs) >= self.max_records or self._bytes >= self.max_bytes

    @property
    def room(self) -> int:
        """How many more records it takes."""
        return 0 if self.full else self.max_records - len(self._jobs)

    def add(self, job: Job, now: float) -> None:
        if not self._jobs:
            self.opened = now
        self._jobs.append(job)
        self._bytes += job.size

    def deadline(self, *, starving: bool) -> float:
        """When it closes if nothing more comes; infinity while it is empty."""
        if not self._jobs:
            return float("inf")
        return self.opened + (min(self.linger, self.max_age) if starving else self.max_age)

    def ready(self, now: float, *, starving: bool) -> bool:
        """Is it time to close? `starving` says that the device is idle."""
        return self.full or now >= self.deadline(starving=starving)

    def close(self, now: float) -> list[Job]:
        """Hand over up to `max_records` jobs, less those whose partition is gone.

        What came in past the bound opens the next window: a window of 513 would cost a batch for one text.
        """
        jobs, self._jobs = self._jobs[: self.max_records], self._jobs[self.max_records :]
        self._bytes = sum(job.size for job in self._jobs)
        self.opened = now
        return [job for job in jobs if not job.lane.closed]

    def clear(self) -> None:
        """Forget the jobs: they will be read again."""
        self._jobs = []
        self._bytes = 0
