"""Looks at the line from beside it, and writes what it sees into the metrics and the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence, Sized

from streamer.ledger import Ledger
from streamer.metrics import Metrics
from streamer.protocols import Source
from streamer.records import Release, TopicPartition
from streamer.window import Window
from streamer.worker import InlineWorker, ThreadWorker

log = logging.getLogger(__name__)

# Seconds between two looks at what is costly to see. A scrape comes every few seconds.
INTERVAL = 0.25


class Observer:
    """One call for each thing that happens; `step` for all that just is. Changes nothing of the line."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        source: Source,
        worker: InlineWorker | ThreadWorker,
        ledger: Ledger,
        window: Window,
        wall: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._source = source
        self._worker = worker
        self._ledger = ledger
        self._window = window
        self.queues: dict[str, Sized] = {"window": window}  # by the name that they have in the metrics
        self._wall = wall
        self._due = 0.0
        self._batches = 0

    def step(self, now: float) -> None:
        """A step of the engine begins."""
        metrics = self._metrics
        metrics.polled_at = now
        if now >= self._due:
            self._due = now + INTERVAL
            self._look(now)

    def window_closes(self, now: float) -> None:
        """Call it before the window is closed."""
        records, waited = len(self._window), now - self._window.opened
        self._metrics.window_records.observe(records)
        self._metrics.window_wait.observe(waited)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("window closed", extra={"records": records, "waited_ms": round(waited * 1000, 1)})

    def written(self, releases: Sequence[Release]) -> None:
        """They are acknowledged, and marked."""
        wall = self._wall()
        for release in releases:
            if release.jobs:
                self._metrics.end_to_end.observe(wall - release.jobs[-1].record.timestamp / 1000)

    def rebalanced(self, event: str, partitions: Sequence[TopicPartition]) -> None:
        """`event` is assigned, revoked or lost. Call it once the ledger knows."""
        metrics = self._metrics
        metrics.rebalances[event] += 1
        metrics.assigned = len(self._ledger.lanes)
        metrics.member = event != "lost"
        log.log(
            logging.WARNING if event == "lost" else logging.INFO,
            "partitions %s",
            event,
            extra={
                "partitions": [f"{topic}[{number}]" for topic, number in partitions],
                "now": metrics.assigned,
            },
        )

    def _look(self, now: float) -> None:
        metrics, lanes = self._metrics, self._ledger.lanes
        # New ones each time: whoever exports holds on to what it found.
        depths = {name: len(queue) for name, queue in self.queues.items()}
        metrics.queues = {**depths, "device": self._worker.in_flight}
        metrics.lag = {
            at: behind + len(lanes[at].jobs) for at, behind in self._source.lag().items() if at in lanes
        }
        metrics.lag_unknown = len(lanes) - len(metrics.lag)
        metrics.in_flight_records, metrics.in_flight_bytes = self._ledger.records, self._ledger.bytes
        oldest = (lane.jobs[0].read_at for lane in lanes.values() if lane.jobs)
        metrics.oldest_at = min(oldest, default=math.inf)
        if metrics.batches != self._batches:
            self._batches = metrics.batches
            metrics.batch_at = metrics.device_busy_since = now
        if not self._worker.in_flight:
            metrics.device_busy_since = math.inf
        elif math.isinf(metrics.device_busy_since):
            metrics.device_busy_since = now
