"""The filters, and what of a letter is counted."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
from datetime import UTC, datetime

from streamer.deadletters.selection import Selection, moment, stamp
from streamer.errors import UsageError

STATUS = ("dead", "replayed")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """All that are given must hold; of one that is given twice, one."""
    parser.add_argument(
        "--reason", action="append", default=[], type=words, help="invalid_json, too_large, ..."
    )
    parser.add_argument(
        "--since", type=_moment, metavar="TIME", help="failed since then: 2h (ago), 2026-11-21T09:30"
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="failed before then")
    parser.add_argument(
        "--id",
        action="append",
        default=[],
        type=words,
        metavar="ID",
        help="id of the text, or TOPIC:PARTITION:OFFSET",
    )
    parser.add_argument(
        "--partition",
        action="append",
        default=[],
        type=_partition,
        metavar="N",
        help="partition of the input topic",
    )
    parser.add_argument("--error", type=words, metavar="TEXT", help="text in the error or its message")


def add_status(parser: argparse.ArgumentParser) -> None:
    """For who looks, or deletes: a replay takes the dead."""
    parser.add_argument("--status", choices=STATUS, help="replayed, or dead and not replayed")


def selection(args: argparse.Namespace) -> Selection:
    """Raises UsageError when no letter could ever be chosen."""
    if args.since is not None and args.until is not None and args.since >= args.until:
        raise UsageError(
            f"--since {stamp(args.since)} is not before --until {stamp(args.until)}: nothing is between them"
        )
    return Selection(
        reasons=tuple(args.reason),
        since=args.since,
        until=args.until,
        ids=tuple(args.id),
        partitions=tuple(args.partition),
        error=args.error,
        status=getattr(args, "status", None),
    )


def who() -> str:
    """For the audit."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def name_of_run(at: int) -> str:
    """When, and enough to tell it from another of the same second."""
    time = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{time}-{os.urandom(2).hex()}"


def words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _partition(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"not the number of a partition: {text}")
    return int(text)


def _moment(text: str) -> int:
    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither an age such as 30m, 2h, 7d nor a time: {text}") from None
