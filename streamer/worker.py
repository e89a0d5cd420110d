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
        self._since = monotonic()
        self.in_flight = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def room(self) -> int:
        """How many more batches it takes."""
        return self._limit - self.in_flight

    def busy_for(self) -> float:
        """Seconds since an outcome came or an idle worker got work; 0 while idle."""
        return monotonic() - self._since if self.in_flight else 0.0

    def offer(self, batch: Batch) -> None:
        if not self.in_flight:
            self._since = monotonic()
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
            self._since = monotonic()
        return outcomes

    def close(self) -> None:
        """Let the threads end once they have done what they hold. Does not wait."""
        for _ in self._threads:
            self._offered.put(None)

    def _work(self) -> None:
        while (batch := self._offered.get()) is not None:
            self._outcomes.put(infer(self._backend, batch))


def infer(backend: Backend, batch: Batch) -> Outcome:
    """Run a batch. Whatever the backend raises becomes the outcome: the engine decides what it means."""
    started = perf_counter()
    try:
        values = backend.infer(batch.jobs)
    except Exception as error:
        return Outcome(batch, [], error, started, perf_counter())
    return Outcome(batch, values, None, started, perf_counter())
