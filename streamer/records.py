"""The nouns of the line, in the order in which a record becomes them. Hardly any behaviour lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

if TYPE_CHECKING:
    from streamer.errors import RecordError
    from streamer.ledger import Lane


# Reasons of dead letters that do not have the whole record: there is nothing to replay in them.
CUT, UNREADABLE = "cut", "unreadable_batch"


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Defect(NamedTuple):
    """What of a record could not be read: such a record can only become a dead letter, for this reason."""

    reason: str
    detail: str


class Record(Struct, frozen=True, gc=False):
    """A record as it was read, untouched. `timestamp` is in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    defect: Defect | None = None


class Text(Struct, frozen=True, gc=False):
    """The input value: what a producer writes to `texts.in`."""

    text: str
    id: str | int | None = None
    meta: Any | UnsetType = UNSET


class Classification(Struct, frozen=True, gc=False):
    """What a classifier says of one text. `score` is the share of `label` in `scores`."""

    label: str
    score: float
    scores: dict[str, float]


class Coordinate(Struct, frozen=True, gc=False):
    """Where a record was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Result(Struct, frozen=True, gc=False, omit_defaults=True):
    """The result value: what consumers of `sentiment.out` read. Times are milliseconds since the epoch."""

    id: str
    label: str
    score: float
    scores: dict[str, float]
    model: str
    revision: str
    source: Coordinate
    processed_at: int
    meta: Any | UnsetType = UNSET
    truncated: Annotated[
        bool, Meta(description="the model saw a part of the text only; not there where it saw all")
    ] = False


class DeadLetter(Struct, frozen=True, gc=False):
    """Why a record has no result. The record itself goes to the dead-letter topic unchanged."""

    reason: str
    error: str
    message: str
    stage: str
    attempts: int
    model: str
    failed_at: int


class Delay(Struct, frozen=True, gc=False):
    """A record whose failure may pass: it goes to the retry topic of `level`, counted from 1, and comes back
    when it is `due`, in milliseconds since the epoch."""

    level: int
    due: int
    why: DeadLetter


class Skip(Struct, frozen=True, gc=False):
    """A record that needs no result: a duplicate, a redelivery of published work, a tombstone."""

    reason: str


class Encoding(NamedTuple):
    """A text as a backend wants it: how many tokens the device computes on, and what `infer` works with.

    `truncated` says that a part of the text is not in it, because it is longer than the model takes.
    """

    tokens: int
    data: Any
    truncated: bool = False


class Job(Struct, gc=False, eq=False):
    """A record on its way. `settled` is None while it is open; `size` is what it holds, in bytes;
    `read_at` is the engine's clock when it came.

    `defect` is why it could not be decoded: it has no id, is claimed by its coordinate, and then dies.
    `encoded` and `truncated` are the backend's. `attempts` counts how often that had it in hand,
    `failing_since` is when it first failed for a reason that may pass. `unclaimed` says that deduplication
    was away and was not waited for, `suspect` that an earlier run had the record in hand when it died.
    """

    record: Record
    lane: Lane
    size: int
    id: str = ""
    text: str = ""
    meta: Any = UNSET
    defect: RecordError | None = None
    unclaimed: bool = False
    suspect: bool = False
    tokens: int = 0
    encoded: Any = None
    truncated: bool = False
    attempts: int = 0
    failing_since: float | None = None
    settled: Result | DeadLetter | Delay | Skip | None = None
    read_at: float = 0.0


class Batch(Struct, gc=False, eq=False):
    """What the device sees at once. `tokens` is what it computes on, padding included.

    `size` is what the budget was for it, and `filled` whether that, not the end of a window or the number of
    texts, is what ended it. A batch that no budget made has neither.
    `before` is how often the backend had answered and failed when it was offered the batch.
    """

    jobs: list[Job]
    tokens: int
    size: int = 0
    filled: bool = False
    before: tuple[int, int] = (0, 0)


class Outcome(Struct, gc=False, eq=False):
    """What the worker says of a batch: a value or an error for each job, or one error for all.

    It was on the device from `started` to `ended`, by the clock of `time.perf_counter`.
    """

    batch: Batch
    values: list[Classification | Exception]
    error: Exception | None
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        """Service time."""
        return self.ended - self.started


class Release(Struct, gc=False, eq=False):
    """The settled prefix of every partition, in order; `reach` is the offset after it, by lane.

    A release without jobs only moves offsets: past skips, transaction markers and compacted records.
    `size` is what it holds, in bytes; `unacknowledged` counts what the sink still waits for. `committed` says
    that its offsets were committed by the sink, together with its messages.
    """

    jobs: list[Job]
    reach: dict[Lane, int]
    size: int
    unacknowledged: int = 0
    committed: bool = False

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """What may be committed once it is written: nothing of a lane that has closed, another owns that."""
        return {lane.partition: offset for lane, offset in self.reach.items() if not lane.closed}

    @property
    def written(self) -> dict[TopicPartition, int]:
        """What may be marked once it is written, whoever owns it by then: up to what was dropped."""
        return {lane.partition: min(offset, lane.dropped) for lane, offset in self.reach.items()}


class Envelope(NamedTuple):
    """A message as a sink writes it; `timestamp` in milliseconds, 0 for the time of writing."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int = 0
