"""The parts of the rig: a model, claims, an index and two sinks, with a hook at every step of the line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from streamer.errors import OutOfMemory, RecordError, TransientError
from streamer.protocols import Answer
from streamer.records import (
    Batch,
    Classification,
    Encoding,
    Envelope,
    Job,
    Outcome,
    Release,
    Skip,
    TopicPartition,
)
from streamer.sinks.memory import MemorySink
from streamer.state.memory import MemoryDeadLetters, MemoryDeduplicator
from streamer.worker import InlineWorker


class Crash(BaseException):
    """The process is gone. No `except Exception` may catch it."""


class Clock:
    """Moves when somebody waits, and a little whenever it is read, so that no loop can stand still in it."""

    TICK = 1e-4

    def __init__(self) -> None:
        self.now = 0.0
        self.waited = 0.0

    def __call__(self) -> float:
        self.now += self.TICK
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds


class Scorer:
    """A model: the label is the text's first word. `poison` breaks its batch, `refused` only itself."""

    name, revision = "scorer", "1"

    def __init__(self, hook: Callable[[str], None]) -> None:
        self.hook = hook
        self.calls: list[int] = []
        self.memory = 10**9  # tokens of the largest batch that fits

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        self.hook("encode:before")
        self.hook("encode:inside")
        encoded = [Encoding(len(text.split()), text) for text in texts]
        self.hook("encode:after")
        return encoded

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        return texts * longest

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        self.hook("infer:before")
        self.calls.append(len(jobs))
        if len(jobs) * max(job.tokens for job in jobs) > self.memory:
            raise OutOfMemory(f"{len(jobs)} texts")
        if any("poison" in job.text for job in jobs):
            raise ValueError("a text made the batch raise")
        self.hook("infer:inside")
        values = [self.score(job.encoded) for job in jobs]
        self.hook("infer:after")
        return values

    @staticmethod
    def score(text: str) -> Classification | Exception:
        if "refused" in text:
            return RecordError("refused", "the model does not take it")
        label = text.split(maxsplit=1)[0]
        return Classification(label, 1.0, {label: 1.0})


class Claims(MemoryDeduplicator):
    """In memory, with hooks. `shared` is the memory, which outlives the process."""

    def __init__(self, shared: MemoryDeduplicator, hook: Callable[[str], None]) -> None:
        self.claims, self.given_back, self.written = shared.claims, shared.given_back, shared.written
        self.left, self.starts = shared.left, shared.starts
        self.hook = hook
        self.wait: Callable[[float], None] = lambda seconds: None

    def claim(self, jobs: Sequence[Job]) -> Answer[list[str | None]]:
        self.hook("claim:before")
        try:
            self.hook("claim:inside")
        except BaseException:
            super().claim(jobs[: len(jobs) // 2])
            raise
        verdicts = super().claim(jobs)
        self.hook("claim:after")
        return verdicts

    def mark(self, offsets: Mapping[TopicPartition, int]) -> Answer[bool]:
        self.hook("mark:before")
        super().mark(dict(list(offsets.items())[: len(offsets) // 2]))
        self.hook("mark:inside")
        marked = super().mark(offsets)
        self.hook("mark:after")
        return marked

    def begin(self, job: Job) -> int:
        self.hook("begin:before")
        return super().begin(job)

    def give_back(self, jobs: Iterable[Job]) -> None:
        self.hook("give_back:before")
        super().give_back(jobs)


class Index(MemoryDeadLetters):
    def __init__(self, hook: Callable[[str], None], stops: Counter[str]) -> None:
        super().__init__()
        self.hook, self._stops = hook, stops

    def add(self, jobs: Sequence[Job]) -> None:
        self.hook("index:before")
        super().add(jobs)


class PromptSink(MemorySink):
    """Written when published, acknowledged later: a crash leaves records that nobody knows of."""

    hook: Callable[[str], None]
    rig: Any

    def publish(self, release: Release) -> None:
        self.hook("publish:before")
        half = Release(release.jobs[: len(release.jobs) // 2], {}, 0)
        try:
            self.hook("publish:inside")
        except Crash:
            super().publish(half)
            raise
        super().publish(release)
        self.hook("publish:after")


class LateSink(PromptSink):
    """Written when acknowledged, `rate` messages a poll: a crash loses what was not. As the Kafka sink does,
    it forgets what it still holds of a partition that is gone."""

    rate = 10**9

    def __init__(self, encode: Callable[[Job], Envelope], *, wait: Callable[[float], None]) -> None:
        super().__init__(encode, wait=wait)
        self.held: list[tuple[Release, Job]] = []

    def publish(self, release: Release) -> None:
        self.hook("publish:before")
        self.hook("publish:inside")
        waiting = [(release, job) for job in release.jobs if not isinstance(job.settled, Skip)]
        release.unacknowledged += len(waiting)
        self.held += waiting
        self.hook("publish:after")

    def poll(self, timeout: float) -> None:
        closed = [(release, job) for release, job in self.held if job.lane.closed]
        for release, job in closed:
            job.lane.drop(job)
            release.unacknowledged -= 1
        self.held = [(release, job) for release, job in self.held if not isinstance(job.settled, Skip)]
        if self.hold or not self.held:
            self._wait(timeout)
            return
        ready, self.held = self.held[: self.rate], self.held[self.rate :]
        for release, job in ready:
            super(PromptSink, self).publish(Release([job], {}, 0))
            release.unacknowledged -= 1


def away(point: str, times: int, error: type[Exception] = TransientError) -> Callable[[str], None]:
    """A hook that raises the first `times` times that the line comes to `point`."""
    left = Counter({point: times})

    def hook(at: str) -> None:
        if left[at] > 0:
            left[at] -= 1
            raise error("away")

    return hook


class HungWorker(InlineWorker):
    """A device that took batches and says nothing."""

    def __init__(self, scorer: Scorer, clock: Clock) -> None:
        super().__init__(scorer)
        self._clock = clock
        self._since = 0.0
        self._held: list[Batch] = []

    @property
    def in_flight(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        return 2 - len(self._held)

    def offer(self, batch: Batch) -> None:
        if not self._held:
            self._since = self._clock()
        self._held.append(batch)

    def busy_for(self) -> float:
        return self._clock() - self._since if self._held else 0.0

    def collect(self, timeout: float) -> list[Outcome]:
        self._clock.wait(timeout)
        return []
