"""Messages as commands show them."""

from __future__ import annotations

from typing import Any

from streamer.records import Record


def headers(record: Record) -> dict[str, str | None]:
    return {name: text(value) for name, value in record.headers}


def as_object(record: Record) -> dict[str, Any]:
    """All of it, for JSON; `defect` says what of it cannot be read."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text(record.key),
        "value": text(record.value),
        "headers": headers(record),
    } | ({"defect": record.defect} if record.defect else {})


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def place(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def printable(text: str) -> str:
    """Data must not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
