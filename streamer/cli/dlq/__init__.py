"""`streamer dlq`: dead letters. What the words mean is in docs/dead-letters.md."""

from __future__ import annotations

import argparse
from importlib import import_module

from streamer.cli.dlq.options import add_filters, add_status, words
from streamer.cli.options import add_config, positive, rate

NAME = "dlq"
HELP = "list, show, count, replay and purge dead letters"
MODULES = {
    "list": "browse",
    "show": "browse",
    "stats": "browse",
    "replay": "replay",
    "rebuild": "upkeep",
    "purge": "upkeep",
}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)

    listing = _action(actions, "list", "the newest dead letters, without their texts")
    add_filters(listing)
    add_status(listing)
    listing.add_argument(
        "--max", type=positive, default=20, metavar="N", help="so many, the newest first (20)"
    )
    listing.add_argument("--text", action="store_true", help="read the topic, and show the values too")
    _scan(listing)

    show = _action(actions, "show", "the dead letters of one record, with value and headers")
    show.add_argument(
        "what",
        type=words,
        metavar="ID",
        help="id of the text, or TOPIC:PARTITION:OFFSET of the record or of the letter",
    )

    stats = _action(actions, "stats", "counts by reason and status, and the last replays and purges")
    add_filters(stats)
    add_status(stats)
    _scan(stats)

    replay = _action(actions, "replay", "publish dead letters to the input topic again")
    add_filters(replay)
    _dry_run(replay)
    replay.add_argument("--max", type=positive, metavar="N", help="no more than so many, the oldest first")
    replay.add_argument("--rate", type=rate, metavar="N", help="so many a second (as fast as it goes)")
    replay.add_argument(
        "--max-replays", type=positive, default=3, metavar="N", help="leave what was replayed so often (3)"
    )

    rebuild = _action(actions, "rebuild", "make the index in Redis anew from the topic")
    _dry_run(rebuild)

    purge = _action(actions, "purge", "delete dead letters from the topic and the index; asks first")
    add_filters(purge)
    add_status(purge)
    _dry_run(purge)
    purge.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Import the action's module, and let it do it."""
    module = import_module(f"{__name__}.{MODULES[args.action]}")
    code: int = getattr(module, args.action if args.action != "list" else "listing")(args)
    return code


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help, description=help)
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="JSON instead of words")
    return parser


def _scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scan", action="store_true", help="read the topic, not the index in Redis")


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, and do nothing")
