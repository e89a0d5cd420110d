"""`streamer health`: whether the worker beside it is well. For Docker's HEALTHCHECK, and for people."""

from __future__ import annotations

import argparse
import http.client
from typing import TYPE_CHECKING

from streamer.cli.options import add_config, load_config, seconds
from streamer.errors import ConfigurationError, StartupError

if TYPE_CHECKING:
    from streamer.settings import Config

NAME = "health"
HELP = "ask the worker of this configuration, on this machine, whether it is well"

UNWELL = 1
# Where a worker that listens everywhere is found from beside it.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--ready", action="store_true", help="whether it takes part in the work: /readyz")
    parser.add_argument("--timeout", type=seconds, default=3.0, metavar="SECONDS", help="default: 3")


def run(args: argparse.Namespace) -> int:
    well, answer = ask(load_config(args), "/readyz" if args.ready else "/healthz", args.timeout)
    print(answer)
    return 0 if well else UNWELL


def ask(config: Config, path: str, timeout: float) -> tuple[bool, str]:
    """What the worker says, and whether that is good news. Raises ConfigurationError or StartupError."""
    ops = config.ops
    if not ops.port:
        raise ConfigurationError("ops.port is needed to ask a worker: give it a number of its own")
    connection = http.client.HTTPConnection(EVERYWHERE.get(ops.host, ops.host), ops.port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status == http.HTTPStatus.OK, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise StartupError(
            f"no worker answers at {connection.host}:{connection.port}{path} ({why}): is it running, and is "
            "ops.port its port?"
        ) from None
    finally:
        connection.close()
