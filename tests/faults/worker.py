"""A worker with faults: `python -m tests.faults.worker PLAN run --config F`.

It is the real command over the real parts. Wrappers around single calls end the process at the point that
the plan (JSON) names, or do what a marked text asks for; the product itself knows nothing of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka
import msgspec

import streamer.sinks.writer
import streamer.sources.kafka
from streamer import cli
from streamer.backends.fake import FakeBackend
from streamer.delays import Past
from streamer.errors import OutOfMemory, TransientError
from streamer.records import Classification, Job, Release
from streamer.sinks.kafka import KafkaSink
from streamer.sinks.transaction import Transaction
from streamer.sinks.writer import Writer
from streamer.state.connection import OPERATION_TIMEOUT
from streamer.state.redis import RedisDeduplicator

# What a text may hold, and what the device does then. BUSY2 has no time for it until it was delayed twice.
RAISES, SEGFAULTS, KILLS, HANGS, BUSY = "RAISES", "SEGFAULTS", "KILLS", "HANGS", "BUSY"


class Plan(msgspec.Struct, frozen=True):
    """What goes wrong. `point` is `step:before`, `:inside` or `:after`, on its `time`-th visit."""

    point: str = ""
    time: int = 1
    hang: bool = False  # stay there for ever, instead of dying
    seed: int = 0
    jitter_ms: float = 0.0  # each batch takes up to so much longer
    cured: bool = False  # marked texts are as good as any
    fits: int = 0  # texts that the device's memory takes at least; beyond, it is a matter of luck


class Faults:
    """Counts the visits to each point, and ends the process at the planned one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._visits: Counter[str] = Counter()
        self._dice = random.Random(plan.seed)

    def reach(self, point: str) -> None:
        if self.due(point):
            self.end()

    def wrap(self, owner: type, name: str, step: str, half: Callable[..., None]) -> None:
        """Have `owner.name` visit its three points; `half` does half of what it does."""
        real = getattr(owner, name)

        def call(self_: Any, *args: Any, **options: Any) -> Any:
            self.reach(f"{step}:before")
            if self.due(f"{step}:inside"):
                half(real, self_, *args, **options)
                self.end()
            answer = real(self_, *args, **options)
            self.reach(f"{step}:after")
            return answer

        setattr(owner, name, call)

    def infer(self, jobs: Sequence[Job]) -> None:
        """What marked texts, seeded delays and scarce memory do on the device."""
        if not self._visits["device"]:
            print("on the device", file=sys.stderr, flush=True)
        self._visits["device"] += 1
        time.sleep(self._dice.random() * self._plan.jitter_ms / 1000)
        fits = self._plan.fits
        if fits and len(jobs) > fits and self._dice.random() < 0.3:
            raise OutOfMemory(f"{len(jobs)} texts")
        for job in () if self._plan.cured else jobs:
            if RAISES in job.text:
                raise ValueError("a marked text")
            if SEGFAULTS in job.text:
                os.kill(os.getpid(), signal.SIGSEGV)
            if KILLS in job.text:
                os.kill(os.getpid(), signal.SIGKILL)
            if HANGS in job.text:
                threading.Event().wait()

    def due(self, point: str) -> bool:
        self._visits[point] += 1
        return self._plan.point == point and self._plan.time == self._visits[point]

    def end(self) -> None:
        if self._plan.hang:
            threading.Event().wait()
        os.kill(os.getpid(), signal.SIGKILL)


def install(faults: Faults) -> None:
    faults.wrap(RedisDeduplicator, "claim", "claim", _half_the_jobs)
    faults.wrap(RedisDeduplicator, "mark", "mark", _half_the_offsets)
    faults.wrap(RedisDeduplicator, "give_back", "give_back", _half_the_dead)
    faults.wrap(KafkaSink, "publish", "publish", _half_the_release)
    faults.wrap(Transaction, "take", "publish", _half_the_transaction)

    real = FakeBackend.infer

    def infer(self: FakeBackend, jobs: Sequence[Job]) -> list[Classification | Exception]:
        faults.infer(jobs)
        return [
            TransientError("429 Too Many Requests") if busy(job) else value
            for job, value in zip(jobs, real(self, jobs), strict=True)
        ]

    FakeBackend.infer = infer  # type: ignore[method-assign]
    faults.wrap(
        FakeBackend, "infer", "infer", lambda infer, backend, jobs: infer(backend, jobs[: len(jobs) // 2])
    )

    class Consumer(confluent_kafka.Consumer):
        def __init__(self, settings: dict[str, Any]) -> None:
            answered = settings["on_commit"]

            def on_commit(*args: Any) -> None:
                answered(*args)
                faults.reach("commit:after")

            super().__init__({**settings, "on_commit": on_commit})

        def commit(self, *args: Any, **options: Any) -> Any:
            faults.reach("commit:before")
            answer = super().commit(*args, **options)
            faults.reach("commit:inside")  # sent, or about to be, and not answered
            return answer

    class Producer(confluent_kafka.Producer):
        def send_offsets_to_transaction(self, *args: Any) -> None:
            faults.reach("offsets:before")
            super().send_offsets_to_transaction(*args)
            faults.reach("offsets:after")

        def commit_transaction(self, *args: Any) -> None:
            faults.reach("transaction:before")
            if faults.due("transaction:inside"):
                with contextlib.suppress(confluent_kafka.KafkaException):
                    super().commit_transaction(0.001)  # sent, or about to be, and not answered
                faults.end()
            super().commit_transaction(*args)
            faults.reach("transaction:after")

    vars(streamer.sources.kafka)["Consumer"] = Consumer
    vars(streamer.sinks.writer)["Producer"] = Producer


def busy(job: Job) -> bool:
    found = re.search(rf"{BUSY}(\d)", job.text)
    return found is not None and Past.of(job.record).level < int(found[1])


def _half_the_jobs(claim: Callable[..., Any], state: RedisDeduplicator, jobs: Sequence[Job]) -> None:
    claim(state, jobs[: len(jobs) // 2]).get(OPERATION_TIMEOUT)


def _half_the_dead(give_back: Callable[..., Any], state: RedisDeduplicator, jobs: Sequence[Job]) -> None:
    give_back(state, jobs[: len(jobs) // 2])


def _half_the_offsets(mark: Callable[..., Any], state: RedisDeduplicator, offsets: dict[Any, int]) -> None:
    mark(state, dict(list(offsets.items())[: len(offsets) // 2])).get(OPERATION_TIMEOUT)


def _half_the_release(publish: Callable[..., Any], sink: KafkaSink, release: Release) -> None:
    half = Release(release.jobs[: len(release.jobs) // 2], {}, 0)
    publish(sink, half)
    while half.unacknowledged:
        sink.poll(0.05)


def _half_the_transaction(
    take: Callable[..., Any], transaction: Transaction, release: Release, writer: Writer
) -> None:
    """Written, in a transaction that nobody ends."""
    take(transaction, Release(release.jobs[: len(release.jobs) // 2], {}, 0), writer)
    while not transaction.fill(writer) or writer.in_flight:
        writer.poll(0.05)


if __name__ == "__main__":
    install(Faults(msgspec.json.decode(sys.argv[1], type=Plan)))
    sys.exit(cli.main(sys.argv[2:]))
