"""What the probes say, and why: from what the engine publishes, without asking anybody.

Whoever restarts (liveness) asks whether the engine goes on and the device gives batches back; whoever rolls
out (readiness) whether it can do its work now. Redis or a broker that is away is no reason for a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamer.metrics import Metrics, Verdicts

# A step takes milliseconds, and a drain on revoke seconds: an engine that is silent for this long hangs.
STALE_STEP = 60.0
STARTED = ("running", "draining")


@dataclass(frozen=True, slots=True)
class Check:
    """One reason to say yes or no, in words."""

    ok: bool
    says: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The checks by name; all must hold."""

    checks: dict[str, Check]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks.values())

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "checks": {name: {"ok": check.ok, "says": check.says} for name, check in self.checks.items()},
        }


@dataclass(frozen=True, slots=True)
class Probes:
    """The three questions. `hang` is limits.hang_s: how long the device may keep work to itself."""

    metrics: Metrics
    hang: float

    def live(self, now: float) -> Answer:
        metrics = self.metrics
        if metrics.stage not in STARTED:
            return Answer({"engine": Check(True, f"not started yet: {metrics.stage}")})
        step, waiting = now - metrics.polled_at, max(0.0, now - metrics.device_busy_since)
        work = f"has had work for {waiting:.1f} s since; at most {self.hang:g}" if waiting else "has no work"
        return Answer(
            {
                "engine": Check(step <= STALE_STEP, f"last step {step:.1f} s ago; at most {STALE_STEP:g}"),
                "device": Check(waiting <= self.hang, f"{_last_batch(metrics, now)}; {work}"),
            }
        )

    def ready(self) -> Answer:
        metrics = self.metrics
        return Answer(
            {
                "work": _work(metrics),
                "assignment": _assignment(metrics),
                "broker": _broker(metrics),
                "redis": _redis(metrics),
            }
        )

    def started(self) -> Answer:
        stage = self.metrics.stage
        return Answer({"start": Check(stage in STARTED, stage)})

    def verdicts(self, now: float) -> Verdicts:
        """The first two as figures."""
        return Verdicts(healthy=self.live(now).ok, ready=self.ready().ok)


def _last_batch(metrics: Metrics, now: float) -> str:
    return "no batch yet" if metrics.batch_at is None else f"last batch {now - metrics.batch_at:.1f} s ago"


def _work(metrics: Metrics) -> Check:
    """It runs once it has its model; `streamer retry` needs none."""
    if metrics.stage == "draining":
        return Check(False, "draining: takes no more records")
    running = metrics.stage == "running"
    says = f"infers with {metrics.model['name']}" if running and metrics.model else metrics.stage
    return Check(running, says)


def _assignment(metrics: Metrics) -> Check:
    if metrics.assigned:
        return Check(
            True, f"{metrics.assigned} partitions" + ("; reading is paused" if metrics.paused else "")
        )
    if metrics.member:
        return Check(True, "a spare: the group has no partition for it")
    return Check(False, "not a member of its group")


def _broker(metrics: Metrics) -> Check:
    up = metrics.brokers_up
    if up is None:  # its first statistics are still to come
        return Check(metrics.member, "it gave an assignment" if metrics.member else "nothing heard yet")
    return Check(up > 0, f"connected to {up}" if up else "no connection")


def _redis(metrics: Metrics) -> Check:
    if metrics.redis_up is None:
        return Check(True, "not in use")
    return Check(metrics.redis_up, "answered when last asked" if metrics.redis_up else "does not answer")
