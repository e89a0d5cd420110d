"""Metrics and probes over HTTP, as far as the configuration asks for them, and where they are."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.metrics import Metrics

if TYPE_CHECKING:
    from streamer.config import Config

log = logging.getLogger(__name__)


@contextmanager
def serve(config: Config, metrics: Metrics) -> Iterator[None]:
    """Metrics and health over HTTP, as far as they are asked for. Raises StartupError."""
    if config.ops.port is None:
        yield
        return
    from streamer.nvml import reader
    from streamer.ops import OpsServer
    from streamer.targets import announced

    ops = config.ops
    server = OpsServer(metrics, ops.host, config.ops.port, hang=config.limits.hang_s, device=reader(metrics))
    log.info("metrics and health at http://%s:%d/", ops.host, server.port)
    slot = config.kafka.consumer.get("group.instance.id") or f"{socket.gethostname()}-{os.getpid()}"
    try:
        with announced(Path(ops.targets), ops.host, server.port, slot) if ops.targets else nullcontext():
            yield
    finally:
        server.close()
