"""Records whose failure may pass: how long they are tried in place, and where they wait after that.

A record that waits lies in a topic of its level, one a delay, so that none waits behind one that is due
later. It carries its past in `retry.*` headers, there and when it is back in the input topic. A producer can
write such headers too: they cost its own record tries, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streamer.records import Record

RETRY_PREFIX = "retry."
UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Tried in place for `deadline` seconds, and then: go on, a dead letter, or the next of `delays`.

    After the last of the delays, in seconds, comes the dead letter too.
    """

    then: Literal["wait", "dead_letter", "delay"] = "wait"
    deadline: float = 300.0
    delays: tuple[int, ...] = ()


class Past(NamedTuple):
    """What a record brings along: how often it was delayed and tried, its first coordinate and its time."""

    level: int
    attempts: int
    origin: str
    timestamp: str

    @classmethod
    def of(cls, record: Record) -> Past:
        found = told(record)
        level = number(found.get("level", ""))
        if not level:
            return cls(0, 0, f"{record.topic}:{record.partition}:{record.offset}", str(record.timestamp))
        return cls(
            level, number(found.get("attempts", "")), found.get("origin", ""), found.get("timestamp", "")
        )


def told(record: Record) -> dict[str, str]:
    """What its `retry.*` headers say, by name without the prefix."""
    return {
        name.removeprefix(RETRY_PREFIX): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(RETRY_PREFIX)
    }


def topics_of(base: str, delays: Iterable[int]) -> list[str]:
    """The topic of each level.

    >>> topics_of("texts.retry", [60, 90, 3600])
    ['texts.retry.1m', 'texts.retry.90s', 'texts.retry.1h']
    """
    return [f"{base}.{written(delay)}" for delay in delays]


def written(seconds: int) -> str:
    """As one writes it: in the largest unit that divides it."""
    unit, size = next((unit, size) for unit, size in UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def number(text: str) -> int:
    """Of what anybody may have written; 0 for nonsense."""
    return int(text) if len(text) < 19 and text.isascii() and text.isdecimal() else 0
