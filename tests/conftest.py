"""Fixtures that every test may use: real servers, started when the first test needs them, and topics."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Protocol

import pytest

from streamer.logs import SparingHandler
from tests.servers import KafkaServer, RedisServer, start_kafka, start_redis

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a command configures here ends with its test: it writes to the standard error of that one."""
    yield
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, SparingHandler)]:
        root.removeHandler(handler)


class MakeTopic(Protocol):
    """What the fixture `make_topic` is."""

    def __call__(
        self,
        name_prefix: str = "topic",
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
        server: KafkaServer | None = None,
    ) -> str:
        """Create a topic with a name of its own, on `kafka` or on `server`, and return the name."""


@pytest.fixture(scope="session")
def announce(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line that is seen at once, whatever pytest captures."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n== {line}", flush=True)

    return say


@pytest.fixture(scope="session")
def kafka(announce: Callable[[str], None]) -> Iterator[KafkaServer]:
    """A real broker for the whole run. A test that kills it uses `breakable_kafka` instead."""
    announce("starting Kafka (the first time, its jars are fetched)")
    server = start_kafka()
    announce(f"Kafka at {server.bootstrap_servers}: {server.origin}")
    yield server
    server.stop()


@pytest.fixture
def breakable_kafka(kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A broker to kill, restart and freeze: `kafka` itself where it is ours, made whole again afterwards."""
    server = kafka if kafka.breakable else start_kafka(external=False)
    yield server
    if server is kafka:
        server.recover()
    else:
        server.stop()


@pytest.fixture(scope="session")
def guarded_kafka(kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A broker with `doors`, where users have names and rights; make users that no other test has."""
    server = kafka if kafka.breakable else start_kafka(external=False)
    yield server
    if server is not kafka:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(announce: Callable[[str], None]) -> Iterator[RedisServer]:
    """A real Redis for the whole run; most tests want `redis_url`."""
    server = start_redis()
    announce(f"Redis: {server.origin}")
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty Redis database."""
    _flush(redis_server)
    return redis_server.url


@pytest.fixture
def breakable_redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """An empty Redis that may be killed, restarted (it is empty again then) and frozen."""
    server = redis_server if redis_server.breakable else start_redis(external=False)
    _flush(server)
    yield server
    if server is redis_server:
        server.recover()
    else:
        server.stop()


@pytest.fixture(scope="session")
def make_topic(request: pytest.FixtureRequest) -> Iterator[MakeTopic]:
    """Creates topics; at the end those on somebody else's broker are deleted, ours go with the broker."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    foreign: list[str] = []

    def make(
        name_prefix: str = "topic",
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
        server: KafkaServer | None = None,
    ) -> str:
        broker: KafkaServer = server or request.getfixturevalue("kafka")
        name = f"{name_prefix}-{os.getpid()}-{next(_numbers)}"
        settings: dict[str, Any] = {"config": dict(config or {})}
        deadline = monotonic() + 80
        while True:
            # A broker that was frozen a moment ago answers, and yet may leave a request to its controller
            # unanswered: ask again on a new connection.
            admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
            topic = NewTopic(name, partitions, 1, **settings)
            created = admin.create_topics([topic], operation_timeout=8, request_timeout=10)
            try:
                created[name].result(timeout=12)
                break
            except (TimeoutError, KafkaException) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else None
                if code == KafkaError.TOPIC_ALREADY_EXISTS:
                    break  # the earlier request was heard after all: the name is nobody else's
                if monotonic() > deadline:
                    raise
        if not broker.breakable:
            foreign.append(name)
        return name

    yield make
    if foreign:
        admin = AdminClient({"bootstrap.servers": request.getfixturevalue("kafka").bootstrap_servers})
        for deleted in admin.delete_topics(foreign).values():
            deleted.result(timeout=30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where PyTorch finds no device; it is imported only if there is such a test."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _flush(server: RedisServer) -> None:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.flushdb()
