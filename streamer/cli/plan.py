"""`streamer plan`: how many workers and partitions a rate needs, from measured figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.cli.options import rate
from streamer.errors import UsageError

NAME = "plan"
HELP = "say how many workers and partitions a rate needs, from measured figures"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=rate, metavar="N", help="texts a second")
    parser.add_argument("--tokens", type=rate, metavar="N", help="tokens of a text, on average")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="its name in the figures (cpu)")
    parser.add_argument("--model", default="sentiment", metavar="NAME", help="that was measured (sentiment)")
    parser.add_argument(
        "--figures", type=Path, metavar="FILE", help="figures of your own (those that ship with streamer)"
    )
    parser.add_argument(
        "--add",
        type=Path,
        metavar="REPORT",
        help="instead, add a report of `streamer bench` to --figures",
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan, with what it is from. Raises UsageError for what nobody has measured."""
    import msgspec

    from streamer.bench import capacity
    from streamer.bench.report import Report

    if args.add is not None:
        if args.figures is None:
            raise UsageError("--add needs --figures: the file to add to")
        try:
            report = msgspec.json.decode(args.add.read_bytes(), type=Report)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{args.add} is no report of `streamer bench --json`: {error}") from None
        added = capacity.row(report, args.device)
        capacity.save(args.figures, added)
        print(f"{args.figures}: {added.model} on {added.device}, {added.texts_per_second:,.0f} texts/s")
        return 0
    if args.rate is None or args.tokens is None:
        raise UsageError("--rate and --tokens are needed: texts a second, and tokens of a text on average")
    row = capacity.find(capacity.rows(args.figures), args.device, args.model)
    found = capacity.plan(row, args.rate, args.tokens)
    latency = ", ".join(f"{name} {value:.0f} ms" for name, value in row.latency_ms.items())
    print(
        f"workers     {found.workers}, each {found.texts_per_second:,.0f} texts/s at most, "
        f"{found.share:.0%} of that planned\n"
        f"partitions  {found.partitions} at least\n"
        f"budget      about {found.budget:,} tokens a batch; sizing: auto finds it\n"
        f"latency     {latency} from Kafka to Kafka, as measured at {row.latency_share:.0%} load\n"
        f"from        {row.model} in {row.precision} on {row.machine}, {row.date}: "
        f"{row.texts_per_second:,.0f} texts/s of {row.tokens:.0f} tokens"
    )
    return 0
