"""`streamer run`: the worker."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamer import __version__, logs
from streamer.cli import signals
from streamer.cli.options import add_config, add_exit_when_idle, load_config
from streamer.errors import DeviceError, StreamerError
from streamer.metrics import Metrics
from streamer.watchdog import Watchdog, dump_threads

if TYPE_CHECKING:
    from streamer.engine import Engine

NAME = "run"
HELP = "score texts until a signal"
log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_exit_when_idle(parser, "end once everything was read and nothing came for so long")


def run(args: argparse.Namespace) -> int:
    """Build the engine and let it work. The first SIGTERM or SIGINT drains it, the second ends it at once."""
    config = load_config(args)
    logs.configure(config.log.format, config.log.level, config.log.repeat_s)
    from streamer.app import build
    from streamer.cli import clients
    from streamer.serving import serve

    topics = config.topics
    log.info("streamer %s: %s to %s as %s", __version__, topics.input, topics.output, config.kafka.group_id)
    log.debug("configuration", extra=config.redacted())
    metrics, limits = Metrics(), config.limits
    with serve(config, metrics):
        with clients.settings_of(clients.KEYS):
            engine = build(config, metrics)
        signals.handle(engine.stop)
        # The longest step that is no hang: a device at its limit, a revoke, a drain.
        with Watchdog(metrics, limits.hang_s + limits.drain_s + limits.revoke_s):
            return _work(engine, args.exit_when_idle)


def _work(engine: Engine, exit_when_idle: float | None) -> int:
    try:
        engine.run(exit_when_idle)
    except StreamerError as error:
        log.critical("%s", error, extra={"exit_code": error.exit_code})
        if isinstance(error, DeviceError):
            dump_threads()
        else:
            _quietly(engine.leave)
        _quietly(engine.close)
        if isinstance(error, DeviceError):
            # A thread that hangs inside the driver would hold a normal exit up as well.
            signals.leave(error.exit_code)
        return error.exit_code
    except Exception:
        # A defect. Leave without committing, and let the group know: what is open will be read again.
        log.critical("unexpected error", exc_info=True)
        _quietly(engine.close)
        raise
    metrics = engine.metrics
    log.info(
        "done: %d results, %d dead letters, %d skipped, of %d records",
        metrics.results,
        metrics.dead.total(),
        metrics.skipped.total(),
        metrics.records,
    )
    return 0


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except Exception as error:
        # It ends for another reason, which is the one to report.
        log.warning("while closing: %s", error if isinstance(error, StreamerError) else type(error).__name__)
