"""Ends a process that hangs: it would hold its partitions for ever, since librdkafka goes on with heartbeats.

The engine itself watches the device. Here a thread watches the engine, by the time of its last step.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

from streamer.errors import DeviceError
from streamer.metrics import Metrics

log = logging.getLogger(__name__)

# When even the watchdog gets no turn, because a library holds the interpreter, a timer of C does the same
# this many seconds later. It can only exit with 1.
GRACE = 30.0


class Watchdog:
    """`with Watchdog(...)`: calls `end` once the engine has taken no step for `limit` seconds.

    A process that was stopped (SIGSTOP, a suspended machine) has missed time, and nothing hangs: so time is
    counted here, `interval` seconds at most for each look.
    """

    def __init__(
        self,
        metrics: Metrics,
        limit: float,
        *,
        interval: float = 1.0,
        end: Callable[[], None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._limit = limit
        self._interval = min(interval, limit / 4)
        self._end = end or self._end_process
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _work(self) -> None:
        step, silent = self._metrics.polled_at, 0.0
        while not self._closed.wait(self._interval):
            faulthandler.dump_traceback_later(self._limit + GRACE, exit=True)
            if step != self._metrics.polled_at:
                step, silent = self._metrics.polled_at, 0.0
                continue
            silent += self._interval
            if silent >= self._limit:
                self._end()
                return

    def _end_process(self) -> None:
        log.critical("the engine has taken no step for %g s: leaving without a commit", self._limit)
        dump_threads()
        logging.shutdown()
        os._exit(DeviceError.exit_code)


def dump_threads() -> None:
    """Where every thread is, on standard error."""
    sys.stderr.flush()
    faulthandler.dump_traceback(all_threads=True)
