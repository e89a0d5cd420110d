"""`streamer retry`: brings delayed records back, beside the workers."""

from __future__ import annotations

import argparse
import logging
import threading
import time
from typing import TYPE_CHECKING

from streamer import __version__, logs
from streamer.backoff import Backoff
from streamer.cli import signals
from streamer.cli.options import add_config, add_exit_when_idle, load_config
from streamer.errors import FatalError, StreamerError
from streamer.metrics import Metrics
from streamer.serving import serve
from streamer.settings import Config
from streamer.watchdog import Watchdog

if TYPE_CHECKING:
    from streamer.retry.mover import Mover

NAME = "retry"
HELP = "bring delayed records back to the input topic when they are due, until a signal"
HANG = 300.0  # seconds for a step: it waits for the broker ten at a time
log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_exit_when_idle(parser, "end once nothing has been waiting in the retry topics for so long")


def run(args: argparse.Namespace) -> int:
    """The first SIGTERM or SIGINT ends it after the transaction that is open, the second at once."""
    config = load_config(args)
    logs.configure(config.log.format, config.log.level, config.log.repeat_s)
    log.info("streamer %s retry", __version__)
    metrics = Metrics()
    stopping = threading.Event()
    with serve(config, metrics):
        mover = _build(config, metrics)
        signals.handle(stopping.set)
        with Watchdog(metrics, HANG):
            return _work(config, metrics, mover, stopping, args.exit_when_idle)


def _work(
    config: Config, metrics: Metrics, mover: Mover, stopping: threading.Event, exit_when_idle: float | None
) -> int:
    """An outage is treated as a death: new clients go on where the transaction of the old ones ended."""
    backoff = Backoff(initial=0.5, maximum=10.0)
    while True:
        try:
            mover.run(stopping.is_set, exit_when_idle)
            metrics.stage = "draining"
            mover.close()
            log.info("done: %d records brought back, %d dead letters", metrics.records, metrics.dead.total())
            return 0
        except FatalError as error:
            log.critical("%s", error, extra={"exit_code": error.exit_code})
            mover.close()
            return error.exit_code
        except StreamerError as error:
            log.error("%s", error)
            mover.close()
        while not stopping.is_set():
            wait = backoff.fail(time.monotonic())
            log.warning("again with new clients in %.1f s", wait)
            metrics.polled_at = time.monotonic()
            stopping.wait(wait)
            try:
                mover = _build(config, metrics)
                backoff.succeed()
                break
            except StreamerError as error:
                log.error("%s", error)
        if stopping.is_set():
            return 0


def _build(config: Config, metrics: Metrics) -> Mover:
    from streamer.cli import clients
    from streamer.retry.assembly import build

    with clients.settings_of(clients.KEYS):
        return build(config, metrics)
