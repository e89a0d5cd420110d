"""Commands that a message names, as they would have to be typed."""

from __future__ import annotations

import shlex
from pathlib import Path

# What messages from below the command line say: they know nothing of a file.
NAMED = ("topics create",)


def command(words: str, config: Path | None) -> str:
    """`words` as a command with the configuration that this one was given."""
    return f"streamer {words}" + (f" --config {shlex.quote(str(config))}" if config else "")


def completed(message: str, config: Path | None) -> str:
    """The message with `--config` in each command that it names: without, that would go to other servers."""
    for words in NAMED:
        message = message.replace(f"`{command(words, None)}`", f"`{command(words, config)}`")
    return message
