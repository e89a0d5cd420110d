"""Where batches meet the model. Engine and worker share two queues and nothing else.

The engine offers and collects; a worker thread infers. The bound `room` is checked by the one offerer, so
there is no lock to hold and nothing to wait for.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter

from streamer.protocols import Backend
from streamer.records import Batch, Outcome

# A worker that wakes up needs the interpreter for microseconds, to fetch the next batch. By default a busy
# engine thread would keep it for 5 ms more: two batches of a fast device.
SWITCH_INTERVAL = 0.00005
# What counts between two looks at a batch, in seconds, at most. A process that was stopped (SIGSTOP, a
# suspended machine) has missed time, and nothing hung.
MISSED = 1.0


class InlineWorker:
    """Runs each batch in the caller's thread, at once: tests are deterministic with it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._outcomes: deque[Outcome] = deque()

    @property
    def in_flight(self) -> int:
        return len(self._outcomes)

    @property
    def room(self) -> int:
        return 1 - len(self._outcomes)

    def busy_for(self) -> float:
        """Seconds that the oldest batch has been with the device: none, it never is."""
        return 0.0

    def offer(self, batch: Batch) -> None:
        self._outcomes.append(infer(self._backend, batch))

    def collect(self, timeout: float) -> list[Outcome]:
        """The outcomes so far. `timeout` is not needed: all work is done."""
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        return outcomes

    def close(self) -> None:
        """Nothing to stop."""


class ThreadWorker:
    """Runs batches in `threads` threads: one for a device, many for a remote API.

    At most `threads + prefetch` batches are offered and not yet collected. The threads are daemons: a device
    that hangs must not keep the process alive.
    """

    def __init__(self, backend: Backend, *, threads: int = 1, prefetch: int = 2) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self._backend = backend
        self._limit = threads + prefetch
        self._offered: SimpleQueue[Batch | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        # Of each thread: how often it has begun and ended a batch, odd while it has one, and since when.
        self._turns = [0] * threads
        self._begun = [0.0] * threads
        # What the last look at them saw, and for how many seconds it was the same.
        self._seen = [0] * threads
        self._held = [0.0] * threads
        self._looked = monotonic()
        self.in_flight = 0
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def room(self) -> int:
        """How many more batches it takes."""
        return self._limit - self.in_flight

    def busy_for(self) -> float:
        """Seconds that the oldest batch has been with the device, as far as somebody looked; 0 while idle."""
        now = monotonic()
        passed, self._looked = min(now - self._looked, MISSED), now
        for number, turn in enumerate(self._turns):
            if turn != self._seen[number]:
                self._seen[number] = turn
                self._held[number] = min(now - self._begun[number], MISSED)
            else:
                self._held[number] += passed
            if turn % 2 == 0:
                self._held[number] = 0.0
        return max(self._held)

    def offer(self, batch: Batch) -> None:
        self.in_flight += 1
        self._offered.put(batch)

    def collect(self, timeout: float) -> list[Outcome]:
        """The outcomes that are there; waits up to `timeout` seconds for the first."""
        outcomes: list[Outcome] = []
        try:
            outcomes.append(self._outcomes.get(block=timeout > 0, timeout=timeout or None))
            while True:
                outcomes.append(self._outcomes.get_nowait())
        except Empty:
            pass
        if outcomes:
            self.in_flight -= len(outcomes)
        return outcomes

    def close(self) -> None:
        """Let the threads end once they have done what they hold. Does not wait."""
        for _ in self._threads:
            self._offered.put(None)

    def _work(self, number: int) -> None:
        while (batch := self._offered.get()) is not None:
            self._begun[number] = monotonic()
            self._turns[number] += 1
            outcome = infer(self._backend, batch)
            self._turns[number] += 1
            self._outcomes.put(outcome)


def infer(backend: Backend, batch: Batch) -> Outcome:
    """Run a batch. Whatever the backend raises becomes the outcome: the engine decides what it means."""
    started = perf_counter()
    try:
        values = backend.infer(batch.jobs)
    except Exception as error:
        return Outcome(batch, [], error, started, perf_counter())
    return Outcome(batch, values, None, started, perf_counter())
