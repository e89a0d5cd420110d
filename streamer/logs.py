"""Logging: JSON lines for machines, one readable line each for people; on standard error, never payloads.

An exception is logged by its type and where it was raised. Its message may quote a text, unless it is one of
streamer's own errors, which never do.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import msgspec

from streamer.errors import StreamerError

# What every LogRecord has of its own; the rest came in as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31", "DEBUG": "2"}


def configure(format: Literal["auto", "json", "text"] = "auto", level: str = "info") -> None:
    """Send all logging to standard error; `auto` is text on a terminal and JSON lines elsewhere.

    Streamer's own loggers have `level`; those of libraries say warnings and worse.
    """
    terminal = sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    lines = format == "json" or (format == "auto" and not terminal)
    handler.setFormatter(
        JsonFormatter() if lines else TextFormatter(colours=terminal and "NO_COLOR" not in os.environ)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("streamer").setLevel(level.upper())
    logging.captureWarnings(True)


class _Formatter(logging.Formatter):
    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        kind, error, trace = ei
        if kind is None:
            return ""
        what = str(error) if isinstance(error, StreamerError) else kind.__name__
        frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
        return " < ".join([what, *reversed(frames)])


class JsonFormatter(_Formatter):
    """One object a line: ts (RFC 3339, UTC), level, logger, message, the extras, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextFormatter(_Formatter):
    """`12:34:56 WARNING message key=value`, coloured on a terminal."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{time} {record.levelname:7} {record.getMessage()}{extras}"
        if record.exc_info:
            line += f" ({self.formatException(record.exc_info)})"
        # A log line is one line: what a message quotes must neither start another nor steer the terminal.
        line = "".join(character if character.isprintable() else " " for character in line)
        colour = _COLOURS.get(record.levelname)
        return f"\x1b[{colour}m{line}\x1b[0m" if self._colours and colour else line


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
