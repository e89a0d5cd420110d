"""Every error that streamer raises on purpose. The message is the docstring, then the detail."""

from __future__ import annotations

from inspect import getdoc


class StreamerError(Exception):
    """Streamer cannot go on."""

    exit_code = 1

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        summary = (getdoc(type(self)) or "").partition("\n")[0]
        super().__init__(f"{summary.removesuffix('.')}: {detail}" if detail else summary)


class RecordError(StreamerError):
    """This record cannot become a result.

    Becomes a dead letter: `reason` is the slug that dead letters are counted by, `detail` says it to a
    person and never quotes the text.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(detail or reason)


class TransientError(StreamerError):
    """Something outside is away for the moment."""


class OutOfMemory(StreamerError):
    """The device has no memory for a batch of this size."""


class FatalError(StreamerError):
    """The broker refuses to go on with this worker."""

    exit_code = 5


class DeviceError(FatalError):
    """The device is hung or broken."""

    exit_code = 6


class DeadLetterLimit(StreamerError):
    """Too many records became dead letters."""

    exit_code = 4


class UsageError(StreamerError):
    """The command line is wrong."""

    exit_code = 2


class NotFound(StreamerError):
    """Not found."""


class ConfigurationError(StreamerError):
    """The configuration is wrong."""

    exit_code = 2


class StartupError(StreamerError):
    """Cannot start."""

    exit_code = 3
