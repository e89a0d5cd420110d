"""Where commands print: rich's console, with our exit code for a reader that has gone."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

from rich import console


class Console(console.Console):
    """rich would end the process with 1 itself."""

    def on_broken_pipe(self) -> NoReturn:
        """Raises BrokenPipeError, as a plain `print` does; `main` knows what it means."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
