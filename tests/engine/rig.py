"""An engine over memory, with a hook at every step of the line, that can be killed and started again.

What outlives a process in production outlives an engine here: the log, the claims, and what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from streamer.codec import Decoder, encode
from streamer.engine import Engine, Limits
from streamer.errors import OutOfMemory, RecordError
from streamer.ledger import Ledger
from streamer.records import Classification, Envelope, Job, Record, Release, Result, Skip, TopicPartition
from streamer.sinks.memory import MemorySink
from streamer.sizing import TokenBudget
from streamer.sources.memory import MemoryLog, MemorySource
from streamer.state.memory import MemoryDeadLetters, MemoryDeduplicator
from streamer.window import Window
from streamer.worker import InlineWorker, ThreadWorker

TOPIC = "texts.in"
DECODER = Decoder("json", ["header", "field", "coordinate"], 512 * 1024)
POINTS = [
    f"{step}:{when}"
    for step in ("claim", "encode", "infer", "publish", "mark", "commit")
    for when in ("before", "inside", "after")
]


class Crash(BaseException):
    """The process is gone. No `except Exception` may catch it."""


class Written(Result, frozen=True, gc=False):
    """A result as its reader sees it; `meta` may hold what Python cannot."""

    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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

    def encode(self, texts: Sequence[str]) -> list[tuple[int, Any]]:
        self.hook("encode:before")
        self.hook("encode:inside")
        encoded: list[tuple[int, Any]] = [(len(text.split()), text) for text in texts]
        self.hook("encode:after")
        return encoded

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
        self.claims, self.written = shared.claims, shared.written
        self.hook = hook

    def claim(self, jobs: Sequence[Job]) -> list[str | None]:
        self.hook("claim:before")
        super().claim(jobs[: len(jobs) // 2])
        self.hook("claim:inside")
        verdicts = super().claim(jobs)
        self.hook("claim:after")
        return verdicts

    def mark(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.hook("mark:before")
        super().mark(dict(list(offsets.items())[: len(offsets) // 2]))
        self.hook("mark:inside")
        super().mark(offsets)
        self.hook("mark:after")

    def give_back(self, jobs: Iterable[Job]) -> None:
        self.hook("give_back:before")
        super().give_back(jobs)


class Index(MemoryDeadLetters):
    def __init__(self, hook: Callable[[str], None]) -> None:
        super().__init__()
        self.hook = hook

    def add(self, jobs: Sequence[Job]) -> None:
        self.hook("index:before")
        super().add(jobs)


class PromptSink(MemorySink):
    """Written when published, acknowledged later: a crash leaves records that nobody knows of."""

    hook: Callable[[str], None]

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
            job.settled = Skip("revoked")
            release.unacknowledged -= 1
        self.held = [(release, job) for release, job in self.held if not isinstance(job.settled, Skip)]
        if self.hold or not self.held:
            self._wait(timeout)
            return
        ready, self.held = self.held[: self.rate], self.held[self.rate :]
        for release, job in ready:
            super(PromptSink, self).publish(Release([job], {}, 0))
            release.unacknowledged -= 1


class WatchedSource(MemorySource):
    """Checks each commit, when it happens, against what was written by then (invariant 2)."""

    rig: Rig

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        self.rig.polls += 1
        return super().poll(max_records, timeout)

    def flush(self, timeout: float) -> None:
        for partition, offset in self._uncommitted.items():
            self.rig.check_commit(partition, offset)
        if self._uncommitted:
            self.rig.hook("commit:before")
            self.rig.hook("commit:inside")
        super().flush(timeout)
        self.rig.hook("commit:after")

    def pause(self) -> None:
        self.rig.pauses += 1
        super().pause()


class Rig:
    """`send` records, `run` an engine over them; `restart` after a `Crash`."""

    def __init__(
        self,
        partitions: int = 1,
        *,
        max_records: int = 16,
        window_bytes: int = 1 << 20,
        max_age: float = 0.5,
        linger: float = 0.005,
        max_texts: int = 8,
        max_tokens: int = 1 << 20,
        max_bytes: int = 1 << 24,
        sink: type[PromptSink] = PromptSink,
        limits: Limits = Limits(drain=1.0, revoke=0.5, hang=5.0),  # noqa: B008 - frozen
    ) -> None:
        self.log = MemoryLog(TOPIC, partitions)
        self.memory = MemoryDeduplicator()
        self.clock = Clock()
        self.on: Callable[[str], None] = lambda point: None
        self.scorer = Scorer(self.hook)
        self.worker: Callable[[Scorer], InlineWorker | ThreadWorker] = InlineWorker
        self.results: list[Envelope] = []
        self.dead_letters: list[Envelope] = []
        self.written: set[tuple[int, int]] = set()
        self.written_ids: set[str] = set()
        self._read = (0, 0)
        self.polls = self.pauses = 0
        self._window = {
            "max_records": max_records,
            "max_bytes": window_bytes,
            "max_age": max_age,
            "linger": linger,
        }
        self._max_texts, self._max_tokens = max_texts, max_tokens
        self._max_bytes, self._sink_class, self._limits = max_bytes, sink, limits
        self.restart()

    def hook(self, point: str) -> None:
        self.on(point)

    def new_source(self) -> WatchedSource:
        return WatchedSource(self.log, wait=self.clock.wait)

    def restart(self) -> None:
        """A new process over what the old one left behind."""
        self.source = self.new_source()
        self.source.rig = self
        self.sink = self._sink_class(encode, wait=self.clock.wait)
        self.sink.hook = self.hook
        self.sink.results, self.sink.dead_letters = self.results, self.dead_letters
        self.index = Index(self.hook)
        self.ledger = Ledger(self._max_bytes)
        self.budget = TokenBudget(
            max_texts=self._max_texts, max_tokens=self._max_tokens, max_latency=1.0, adaptive=False
        )
        self.engine = Engine(
            source=self.source,
            sink=self.sink,
            backend=self.scorer,
            worker=self.worker(self.scorer),
            decoder=DECODER,
            deduplicator=Claims(self.memory, self.hook),
            dead_letters=self.index,
            window=Window(**self._window),  # type: ignore[arg-type]
            budget=self.budget,
            ledger=self.ledger,
            limits=self._limits,
            clock=self.clock,
            wall=self.clock,
        )

    def send(self, text: str, id: str | None = None, partition: int = 0) -> Record:
        value = {"text": text} if id is None else {"text": text, "id": id}
        return self.log.append(msgspec.json.encode(value), partition=partition)

    def run(self) -> None:
        """Work until there has been nothing to do for a while, then drain."""
        self.engine.run(exit_when_idle=0.05)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()

    # -- what came of it -----------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        return [result.id for result in self.decoded]

    @property
    def decoded(self) -> list[Written]:
        return [msgspec.json.decode(envelope.value or b"", type=Written) for envelope in self.results]

    @property
    def reasons(self) -> list[str]:
        return [headers(envelope)["dlq.reason"] for envelope in self.dead_letters]

    @property
    def ends(self) -> dict[TopicPartition, int]:
        return {partition: len(records) for partition, records in self.log.records.items()}

    @property
    def committed(self) -> dict[TopicPartition, int]:
        """The commits that cover something."""
        return {partition: offset for partition, offset in self.log.committed.items() if offset}

    def scored(self) -> list[tuple[int, int]]:
        """The coordinates of the results, as written."""
        return [(result.source.partition, result.source.offset) for result in self.decoded]

    def buried(self) -> list[tuple[int, int]]:
        """The coordinates of the dead letters, as written."""
        return [
            (int(found["dlq.partition"]), int(found["dlq.offset"]))
            for found in map(headers, self.dead_letters)
        ]

    def check_commit(self, partition: TopicPartition, offset: int) -> None:
        """Below a commit all is written, or is a skip: a tombstone, or an id that another record holds."""
        self.read_what_was_written()
        for record in self.log.records[partition][self.log.committed.get(partition, 0) : offset]:
            if record.value is None or (partition.partition, record.offset) in self.written:
                continue
            mine = (partition, record.offset)
            skipped = id_of(record) in self.written_ids or self.memory.claims.get(id_of(record), mine) != mine
            assert skipped, f"commit {offset} passes {record.offset}, which is open"

    def unmarked(self) -> set[tuple[int, int]]:
        """The coordinates that may be written once more, for neither a mark nor a commit holds them back.

        Marks do not hold the dead back: their claims are given back, for a replay.
        """
        self.read_what_was_written()
        dead = set(self.buried())
        marked = {partition.partition: offset for partition, offset in self.memory.written.items()}
        committed = {partition.partition: offset for partition, offset in self.log.committed.items()}
        uncommitted = {at for at in self.written if at[1] >= committed.get(at[0], 0)}
        return {at for at in uncommitted if at in dead or at[1] >= marked.get(at[0], 0)}

    def read_what_was_written(self) -> None:
        """Add what is new to `written` and `written_ids`."""
        for envelope in self.results[self._read[0] :]:
            result = msgspec.json.decode(envelope.value or b"", type=Written)
            self.written.add((result.source.partition, result.source.offset))
            self.written_ids.add(result.id)
        for envelope in self.dead_letters[self._read[1] :]:
            found = headers(envelope)
            self.written.add((int(found["dlq.partition"]), int(found["dlq.offset"])))
            self.written_ids.add(id_of_dead(envelope))
        self._read = len(self.results), len(self.dead_letters)


def headers(envelope: Envelope) -> Mapping[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in envelope.headers}


def id_of(record: Record) -> str:
    try:
        return DECODER.decode(record)[0]
    except RecordError:
        return f"{record.topic}:{record.partition}:{record.offset}"


def id_of_dead(envelope: Envelope) -> str:
    found = headers(envelope)
    partition, offset = int(found["dlq.partition"]), int(found["dlq.offset"])
    return id_of(Record(found["dlq.topic"], partition, offset, 0, None, envelope.value, []))
