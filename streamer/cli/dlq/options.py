"""The filters, and what of a letter is counted."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
from datetime import UTC, datetime

from streamer.deadletters.selection import Selection, moment


def status_choices() -> tuple[str, ...]:
    return "dead", "replayed"


def add_filters(parser: argparse.ArgumentParser) -> None:
    """All that are given must hold; of one that is given twice, one."""
    parser.add_argument("--reason", action="append", default=[], help="invalid_json, too_large, ...")
    parser.add_argument(
        "--since", type=_moment, metavar="TIME", help="failed since then: 2h (ago), 2026-11-21T09:30"
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="failed before then")
    parser.add_argument(
        "--id", action="append", default=[], metavar="ID", help="id of the text, or TOPIC:PARTITION:OFFSET"
    )
    parser.add_argument(
        "--partition", action="append", default=[], type=int, metavar="N", help="partition of the input topic"
    )
    parser.add_argument("--error", metavar="TEXT", help="text in the error or its message")


def selection(args: argparse.Namespace) -> Selection:
    return Selection(
        reasons=tuple(args.reason),
        since=args.since,
        until=args.until,
        ids=tuple(args.id),
        partitions=tuple(args.partition),
        error=args.error,
        status=getattr(args, "status", None),
    )


def coordinate(text: str) -> tuple[str, int, int]:
    """Topic, partition and offset; for argparse."""
    topic, partition, offset = [*text.split(":"), "", ""][:3]
    if not (topic and partition.isdecimal() and offset.isdecimal() and len(partition + offset) < 30):
        raise argparse.ArgumentTypeError(f"not TOPIC:PARTITION:OFFSET: {text}")
    return topic, int(partition), int(offset)


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


def _moment(text: str) -> int:
    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither an age such as 30m, 2h, 7d nor a time: {text}") from None
