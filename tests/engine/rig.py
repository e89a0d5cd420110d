"""An engine over memory, with a hook at every step of the line, that can be killed and started again.

What outlives a process in production outlives an engine here: the log, the claims, and what was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from streamer.codec import Decoder, encode
from streamer.engine import Engine
from streamer.errors import RecordError
from streamer.ledger import Lane, Ledger
from streamer.limits import Limits
from streamer.records import Envelope, Job, Record, Result, TopicPartition
from streamer.sizing import TokenBudget
from streamer.sources.memory import MemoryLog, MemorySource
from streamer.state.memory import MemoryDeduplicator
from streamer.window import Window
from streamer.worker import InlineWorker, ThreadWorker
from tests.engine.parts import Claims, Clock, Index, PromptSink, Scorer

TOPIC = "texts.in"
DECODER = Decoder("json", ["header", "field", "coordinate"], 512 * 1024)
POINTS = [
    f"{step}:{when}"
    for step in ("claim", "encode", "infer", "publish", "mark", "commit")
    for when in ("before", "inside", "after")
]


class Written(Result, frozen=True, gc=False):
    """A result as its reader sees it; `meta` may hold what Python cannot."""

    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
        claims: type[Claims] = Claims,
        limits: Limits = Limits(drain=1.0, revoke=0.5, hang=5.0),  # noqa: B008 - frozen
    ) -> None:
        self.log = MemoryLog(TOPIC, partitions)
        self.memory = MemoryDeduplicator()
        self.stops: Counter[str] = Counter()
        self.clock = Clock()
        self.on: Callable[[str], None] = lambda point: None
        self.scorer = Scorer(self.hook)
        self.worker: Callable[[Scorer], InlineWorker | ThreadWorker] = InlineWorker
        self.results: list[Envelope] = []
        self.dead_letters: list[Envelope] = []
        self.delayed: list[Envelope] = []
        self.written: set[tuple[int, int]] = set()
        self.written_ids: set[str] = set()
        self._read = (0, 0, 0)
        self._returned = 0
        self.polls = self.pauses = 0
        self._window = {
            "max_records": max_records,
            "max_bytes": window_bytes,
            "max_age": max_age,
            "linger": linger,
        }
        self._max_texts, self._max_tokens = max_texts, max_tokens
        self._max_bytes, self._sink_class, self._limits = max_bytes, sink, limits
        self._claims_class = claims
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
        self.sink.hook, self.sink.rig = self.hook, self
        self.sink.results, self.sink.dead_letters = self.results, self.dead_letters
        self.sink.delayed = self.delayed
        self.claims = self._claims_class(self.memory, self.hook)
        self.claims.wait = self.clock.wait
        self.index = Index(self.hook, self.stops)
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
            deduplicator=self.claims,
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

    def come_back(self) -> None:
        """As `streamer retry` does, when the time has come: what was delayed is in the input topic again."""
        for envelope in self.delayed[self._returned :]:
            found = headers(envelope)
            # A worker that died in time has not given the claim back.
            old = Record(TOPIC, int(found["retry.partition"]), int(found["retry.offset"]), 0, None, b"", [])
            lane = Lane(TopicPartition(old.topic, old.partition))
            self.memory.give_back([Job(old, lane, 0, id_of_delayed(envelope))])
            self.clock.now = max(self.clock.now, int(found["retry.due"]) / 1000)
            self.log.append(
                envelope.value,
                partition=int(found["retry.partition"]),
                key=envelope.key,
                headers=envelope.headers,
                timestamp=int(self.clock.now * 1000),
            )
        self._returned = len(self.delayed)

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
        """The coordinates that may be written once more, for neither a mark nor a commit holds them back."""
        self.read_what_was_written()
        marked = {partition.partition: offset for partition, offset in self.memory.written.items()}
        committed = {partition.partition: offset for partition, offset in self.log.committed.items()}
        return {at for at in self.written if at[1] >= max(committed.get(at[0], 0), marked.get(at[0], 0))}

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
        for envelope in self.delayed[self._read[2] :]:
            self.written_ids.add(id_of_delayed(envelope))
        self._read = len(self.results), len(self.dead_letters), len(self.delayed)


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


def id_of_delayed(envelope: Envelope) -> str:
    return id_of(Record("", 0, 0, 0, None, envelope.value, envelope.headers))
