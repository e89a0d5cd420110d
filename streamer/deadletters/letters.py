"""What lies in the dead-letter topic: letters, notes of replays, and what is neither."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from streamer.codec import DEAD_LETTER_PREFIX, Decoder
from streamer.errors import RecordError
from streamer.records import Record
from streamer.state.entries import Entry, shorten

# A message with this header is a note of ours beside the letters. `codec.encode` drops what records bring
# under the prefix, so only who may write to the dead-letter topic can write a note.
NOTE_HEADER = f"{DEAD_LETTER_PREFIX}note"
REPLAYED = b"replayed"
Headers = list[tuple[str, bytes | None]]


class Letter(Struct, frozen=True, gc=False):
    """A dead letter, and where in the dead-letter topic it lies."""

    partition: int
    offset: int
    entry: Entry


class Foreign(Struct, frozen=True, gc=False):
    """A message that streamer did not write there, and how one sees it."""

    partition: int
    offset: int
    timestamp: int
    why: str


class Step(Struct, frozen=True, gc=False, array_like=True):
    """One record that a replay published: the offsets of its letter in the note's partition, the key of the
    new record, what it was first, and which replay of that it is. Without offsets it only repeats,
    for a letter that stays, what a purge deletes."""

    offsets: list[int]
    key: str
    origin: str
    number: int


class Note(Struct, frozen=True, gc=False):
    """Written in one transaction with the records that it tells of, to the partition of their letters."""

    replay: str
    at: int
    by: str
    filter: str
    steps: list[Step]


_decode_note = msgspec.json.Decoder(Note).decode


def read(found: Record, decoder: Decoder) -> Letter | Note | Foreign:
    """What a message of the dead-letter topic is. Never raises for what is in it."""
    at = found.partition, found.offset
    try:
        if found.defect:
            raise _Foreign(found.defect.detail)
        last = {name: value for name, value in found.headers if name.startswith(DEAD_LETTER_PREFIX)}
        if last.get(NOTE_HEADER) == REPLAYED:
            return _decode_note(found.value or b"")
        entry = _entry(last)
    except _Foreign as foreign:
        return Foreign(*at, found.timestamp, str(foreign))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Foreign(*at, found.timestamp, "a damaged note")
    id = identify(record_of(found, entry), decoder)
    return Letter(*at, msgspec.structs.replace(entry, id=shorten(id)))


def record_of(found: Record, entry: Entry) -> Record:
    """The record that died."""
    where = entry.topic, entry.partition, entry.offset, entry.timestamp
    return Record(*where, found.key, found.value, original(found.headers))


def original(headers: Headers) -> Headers:
    """The headers that the record came with."""
    return [header for header in headers if not header[0].startswith(DEAD_LETTER_PREFIX)]


def identify(record: Record, decoder: Decoder) -> str:
    """The id by which it was claimed; empty where it had none."""
    try:
        return decoder.decode(record)[0]
    except RecordError:
        return ""


class _Foreign(Exception):
    pass


def _entry(headers: dict[str, bytes | None]) -> Entry:
    def text(name: str) -> str:
        return (headers.get(DEAD_LETTER_PREFIX + name) or b"").decode(errors="replace")

    def number(name: str, needed: Callable[[int], bool] | None = None) -> int:
        try:
            value = int(text(name))
        except ValueError:
            value = 0 if needed is None else -1
        if needed is not None and not needed(value):
            raise _Foreign(f"the header {DEAD_LETTER_PREFIX}{name} is no {name}")
        return min(value, 1 << 62)

    if not headers:
        raise _Foreign(f"no {DEAD_LETTER_PREFIX}* headers")
    if not text("topic") or not text("reason"):
        raise _Foreign(f"no {DEAD_LETTER_PREFIX}topic or no {DEAD_LETTER_PREFIX}reason")
    return Entry(
        topic=text("topic"),
        partition=number("partition", lambda value: 0 <= value < 1 << 31),
        offset=number("offset", lambda value: 0 <= value < 1 << 63),
        timestamp=number("timestamp"),
        reason=text("reason"),
        error=text("error"),
        message=shorten(text("message")),
        stage=text("stage"),
        attempts=number("attempts"),
        model=text("model"),
        failed_at=number("failed_at"),
    )
