"""`python -m tests.servers`: a Kafka and a Redis until Ctrl-C, for a benchmark or a developer.

One line of JSON on standard output says where they are, once both answer:
{"bootstrap_servers": "127.0.0.1:21234", "redis_url": "redis://127.0.0.1:23456/0", ...}

With `--fetch` it only downloads what they need.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from types import FrameType

from tests.servers import ServerError, prepare_kafka, start_kafka, start_redis
from tests.servers.redis import fetch_valkey


class _Stop(BaseException):
    """A signal came, whatever we were doing."""


def main() -> int:
    """Run until SIGINT or SIGTERM; the exit code is 3 when a server could not be started."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    with contextlib.ExitStack() as servers:
        try:
            if sys.argv[1:] == ["--fetch"]:
                prepare_kafka()
                fetch_valkey()
                return 0
            redis = start_redis()
            servers.callback(redis.stop)
            kafka = start_kafka()
            servers.callback(kafka.stop)
            addresses = {
                "bootstrap_servers": kafka.bootstrap_servers,
                "redis_url": redis.url,
                "kafka": kafka.origin,
                "redis": redis.origin,
            }
            print(json.dumps(addresses), flush=True)
            while True:
                signal.pause()
        except ServerError as error:
            print(f"tests.servers: {error}", file=sys.stderr)
            return 3
        except _Stop:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # a second one must not cut the clean-up short
            return 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


if __name__ == "__main__":
    sys.exit(main())
