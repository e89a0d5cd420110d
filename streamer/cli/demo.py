"""`streamer demo`: the whole line on this machine, with nothing else to set up."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from streamer.cli.options import positive

NAME = "demo"
HELP = "run the main job on reviews of our own, with an embedded Kafka and Redis unless you name real ones"

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=positive, default=3000, metavar="N", help="reviews to publish (default: 3000)"
    )
    parser.add_argument(
        "--bootstrap-servers", metavar="HOST:PORT", help="a real Kafka; missing topics are created there"
    )
    parser.add_argument("--redis", metavar="URL", help="a real Redis, as redis://HOST:6379/0")
    parser.add_argument(
        "--model", metavar="NAME", help="a shipped model, a folder or a hub name (default: sentiment)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws other reviews (default: 1)")
    parser.add_argument("--serve", action="store_true", help="leave it running until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    from streamer.cli.console import Console
    from streamer.embedded.demo import Options, program, run_demo

    console = Console(highlight=False)
    options = Options(
        count=args.count,
        seed=args.seed,
        bootstrap_servers=args.bootstrap_servers,
        redis=args.redis,
        model=args.model,
        serve=args.serve,
    )
    with _one_interrupt():
        try:
            code = run_demo(options, console)
        except KeyboardInterrupt:
            console.print("interrupted; nothing of the demo is left running")
            raise
    if code == 0:
        name = program()
        console.print(
            "\nNext, with your own Kafka and Redis in config/streamer.yaml:\n"
            f"  {name} check --config config/streamer.yaml           what is there and what is missing\n"
            f"  {name} run --config config/streamer.yaml             the worker\n"
            f"  {name} publish FILE --config config/streamer.yaml    texts for it",
            markup=False,
            soft_wrap=True,
        )
    return code


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal unwind the demo; a second one must not cut that short."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
