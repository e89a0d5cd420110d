"""Logging: JSON lines for machines, one readable line each for people; on standard error, never payloads.

An exception is logged by its type and where it was raised. Its message may quote a text, unless it is one of
streamer's own errors, which never do.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import msgspec

from streamer.errors import StreamerError

log = logging.getLogger(__name__)

# What every LogRecord has of its own; the rest came in as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31", "DEBUG": "2"}


def configure(
    format: Literal["auto", "json", "text"] = "auto", level: str = "info", repeat: float = 0.0
) -> None:
    """Send all logging to standard error; `auto` is text on a terminal and JSON lines elsewhere.

    Streamer's own loggers have `level`; those of libraries say warnings and worse. The same warning is there
    at most once in `repeat` seconds.
    """
    terminal = sys.stderr.isatty()
    handler = SparingHandler(sys.stderr, repeat)
    lines = format == "json" or (format == "auto" and not terminal)
    handler.setFormatter(
        JsonFormatter() if lines else TextFormatter(colours=terminal and "NO_COLOR" not in os.environ)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("streamer").setLevel(level.upper())
    logging.captureWarnings(True)


def say_last(message: str, exit_code: int) -> bool:
    """Log why the command ends, behind what was left out so far. False where no JSON log is configured."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, SparingHandler)]
    for handler in handlers:
        handler.catch_up()
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in handlers):
        return False
    log.error("%s", message, extra={"exit_code": exit_code})
    return True


def _calm(record: logging.LogRecord) -> bool:
    """librdkafka warns of a coordinator that has just started, and asks it again: that is no trouble."""
    # By its text: what went into it may be an error of librdkafka, and that cannot be compared with a str.
    text = record.getMessage() if record.levelno == logging.WARNING else ""
    if text.startswith("GETPID ") and "load in progress" in text:
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)
    return True


class SparingHandler(logging.StreamHandler[TextIO]):
    """Writes the same warning or error once in `repeat` seconds, and then how many were left out.

    Two are the same when they were made from the same words, and what was put first into them is the same
    text: `%s waits %.2f s` says so once for each stage. What is worse than an error is never left out.
    """

    def __init__(self, stream: TextIO, repeat: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.addFilter(_calm)
        self._repeat = repeat
        self._clock = clock
        # Until when it is left out, how many were, and the last of them.
        self._said: dict[Hashable, tuple[float, int, logging.LogRecord]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        self._tell(now)
        if self._repeat and record.levelno in (logging.WARNING, logging.ERROR):
            first = record.args[0] if isinstance(record.args, tuple) and record.args else None
            key = record.name, record.levelno, record.msg, first if isinstance(first, str) else None
            if key in self._said:
                until, count, _ = self._said[key]
                self._said[key] = until, count + 1, record
                return
            self._said[key] = now + self._repeat, 0, record
        super().emit(record)

    def catch_up(self) -> None:
        """Say what was left out so far, and each warning anew when it comes again."""
        with self.lock or nullcontext():
            self._tell(math.inf)
            self._said.clear()

    def close(self) -> None:
        """Say what was left out last."""
        self.catch_up()
        super().close()

    def _tell(self, now: float) -> None:
        for key in [key for key, (until, _, _) in self._said.items() if now >= until]:
            _, count, last = self._said.pop(key)
            if count:
                last.left_out = count
                super().emit(last)
                self._said[key] = now + self._repeat, 0, last


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
