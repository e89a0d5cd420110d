"""When to try again: a deadline that moves out with each failure. Nothing sleeps."""

from __future__ import annotations

from random import Random


class Backoff:
    """Exponential with equal jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015), in seconds."""

    def __init__(self, *, initial: float = 0.05, maximum: float = 5.0, random: Random | None = None) -> None:
        self._initial = initial
        self._maximum = maximum
        self._random = random or Random()
        self.failures = 0
        self.until = 0.0

    def ready(self, now: float) -> bool:
        return now >= self.until

    def fail(self, now: float) -> float:
        """Note a failure; returns the seconds to wait, at least half of the exponential step."""
        wait = self.wait(self.failures)
        self.failures += 1
        self.until = now + wait
        return wait

    def wait(self, failures: int) -> float:
        """The seconds to wait after one failure more than these."""
        step = min(self._maximum, self._initial * 2.0 ** min(failures, 30))
        return step * self._random.uniform(0.5, 1.0)

    def succeed(self) -> None:
        self.failures = 0
        self.until = 0.0
