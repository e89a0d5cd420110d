"""Messages as commands show them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from streamer.records import Record


def headers(record: Record) -> dict[str, str | None]:
    return {name: text(value) for name, value in record.headers}


def as_object(record: Record) -> dict[str, Any]:
    """All of it, for JSON; `defect` says what of it cannot be read.

    A key or value that is no UTF-8 has its bytes beside it, in `key_base64` or `value_base64`.
    """
    whole: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text(record.key),
        "value": text(record.value),
        "headers": headers(record),
    }
    for name, value in ("key", record.key), ("value", record.value):
        if value is not None and not is_text(value):
            whole[f"{name}_base64"] = b64encode(value).decode()
    return whole | ({"defect": record.defect.detail} if record.defect else {})


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def place(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def printable(text: str) -> str:
    """Data must not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
