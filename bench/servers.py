"""The servers under a benchmark: those that are given, or a real Kafka and Redis of its own."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Servers:
    bootstrap_servers: str
    redis_url: str


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--bootstrap-servers", help="a running Kafka (default: one is started)")
    parser.add_argument("--redis", help="URL of a running Redis (default: one is started)")


def nobody() -> Namespace:
    """The arguments of whoever has no servers: both are started."""
    return Namespace(bootstrap_servers=None, redis=None)


@contextlib.contextmanager
def running(args: Namespace) -> Iterator[Servers]:
    """The servers for the length of a benchmark; stops what it started."""
    with contextlib.ExitStack() as stack:
        bootstrap_servers, redis_url = args.bootstrap_servers, args.redis
        if redis_url is None or bootstrap_servers is None:
            from tests.servers import start_kafka, start_redis

            if redis_url is None:
                redis = start_redis()
                stack.callback(redis.stop)
                redis_url = redis.url
            if bootstrap_servers is None:
                kafka = start_kafka()
                stack.callback(kafka.stop)
                bootstrap_servers = kafka.bootstrap_servers
        yield Servers(bootstrap_servers, redis_url)
