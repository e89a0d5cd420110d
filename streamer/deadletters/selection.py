"""Which letters: by reason, time, id, partition, text of the error, status."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from streamer.state.entries import Entry, shorten

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Selection(Struct, frozen=True, kw_only=True):
    """All that is given must hold; of several reasons, ids or partitions one. Times are of the failure."""

    reasons: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    ids: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()
    error: str | None = None
    status: str | None = None

    def takes(self, entry: Entry) -> bool:
        return (
            (not self.reasons or entry.reason in self.reasons)
            and (self.since is None or entry.failed_at >= self.since)
            and (self.until is None or entry.failed_at < self.until)
            and (not self.ids or self._names(entry))
            and (not self.partitions or entry.partition in self.partitions)
            and (self.error is None or self.error.lower() in f"{entry.error}: {entry.message}".lower())
            and (self.status is None or entry.status == self.status)
        )

    def __str__(self) -> str:
        """As it goes into the audit."""
        parts = [f"reason={reason}" for reason in self.reasons]
        parts += [f"since={stamp(self.since)}"] if self.since is not None else []
        parts += [f"until={stamp(self.until)}"] if self.until is not None else []
        parts += [f"id={id}" for id in self.ids[:20]]
        parts += [f"and {len(self.ids) - 20} more ids"] if len(self.ids) > 20 else []
        parts += [f"partition={partition}" for partition in self.partitions]
        parts += [f"error={self.error}"] if self.error is not None else []
        parts += [f"status={self.status}"] if self.status is not None else []
        return " ".join(parts) or "all"

    def _names(self, entry: Entry) -> bool:
        return any(id in (entry.source, entry.origin) or shorten(id) == entry.id for id in self.ids if id)


def moment(text: str, now: Callable[[], float] = time.time) -> int:
    """`2h` (ago), or a time such as 2026-11-21T09:30, local unless it says otherwise, in milliseconds.

    Raises ValueError.
    """
    try:
        if match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text.strip()):
            seconds = now() - float(match[1]) * UNITS[match[2]]
        else:
            seconds = datetime.fromisoformat(text.strip()).timestamp()
    except OverflowError as error:
        raise ValueError(text) from error
    if seconds < 0:
        raise ValueError(f"before 1970: {text}")
    return int(seconds * 1000)


def stamp(milliseconds: int) -> str:
    """A time as one reads and types it: local, to the second."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"
