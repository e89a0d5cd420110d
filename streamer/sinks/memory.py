"""A sink that keeps what it is given: for tests and for those who embed the engine."""

from __future__ import annotations

from collections.abc import Callable

from streamer.records import DeadLetter, Delay, Envelope, Job, Release, Result


class MemorySink:
    """Acknowledges at the next poll; `hold` keeps acknowledgements back until it is False again."""

    def __init__(
        self, encode: Callable[[Job], Envelope], *, wait: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self._encode = encode
        self._wait = wait
        self._pending: list[Release] = []
        self.hold = False
        self.refused: list[Job] = []
        self.results: list[Envelope] = []
        self.dead_letters: list[Envelope] = []
        self.delayed: list[Envelope] = []

    def publish(self, release: Release) -> None:
        for job in release.jobs:
            if isinstance(job.settled, Result):
                self.results.append(self._encode(job))
                release.unacknowledged += 1
            elif isinstance(job.settled, DeadLetter):
                self.dead_letters.append(self._encode(job))
                release.unacknowledged += 1
            elif isinstance(job.settled, Delay):
                self.delayed.append(self._encode(job))
                release.unacknowledged += 1
        self._pending.append(release)

    def poll(self, timeout: float) -> None:
        if self.hold:
            self._wait(timeout)
            return
        for release in self._pending:
            release.unacknowledged = 0
        self._pending.clear()

    def close(self) -> None:
        """Nothing to let go of."""
