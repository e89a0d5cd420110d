"""Messages as commands show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka import Message


def headers(message: Message) -> dict[str, str | None]:
    pairs = message.headers() or []
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in (pairs.items() if isinstance(pairs, dict) else pairs)
    }


def as_object(message: Message) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": text(message.key()),
        "value": text(message.value()),
        "headers": headers(message),
    }


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def place(message: Message) -> str:
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"


def printable(text: str) -> str:
    """Data must not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
