"""Signals: the first asks a command to finish, the second ends it at once."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def handle(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; the second exits with INTERRUPTED."""
    signalled = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            leave(INTERRUPTED)
        signalled = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def interrupt_on_terminate() -> None:
    """SIGTERM is to a command what Ctrl-C is: it says how far it came, and leaves nothing open."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """End the process now, with what was logged written out."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
