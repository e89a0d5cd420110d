"""Options that commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from streamer.config import load
from streamer.settings import Config

Number = TypeVar("Number", int, float)


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (YAML); without it the defaults, and STREAMER__SECTION__KEY over either",
    )


def add_exit_when_idle(parser: argparse.ArgumentParser, help: str) -> None:
    """`--exit-when-idle`, of commands that work until a signal."""
    parser.add_argument("--exit-when-idle", type=seconds, metavar="SECONDS", help=help)


def load_config(args: argparse.Namespace) -> Config:
    """The configuration that the options and the environment name. Raises ConfigurationError."""
    return load(args.config, os.environ)


def seconds(text: str) -> float:
    """A time that is not negative; for argparse."""
    value = _number(float, text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"not a time in seconds: {text}")
    return value


def positive(text: str) -> int:
    """A whole number of one or more; for argparse."""
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more: {text}")
    return value


def rate(text: str) -> float:
    """So many a second; for argparse."""
    value = _number(float, text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0: {text}")
    return value


def _number(kind: Callable[[str], Number], text: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"not a {what}: {text}") from None
