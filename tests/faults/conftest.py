"""`make_world`, whose accounts go into the table under the test's `case`."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import MakeTopic
from tests.faults import table
from tests.faults.proxy import Proxy
from tests.faults.world import World
from tests.servers import KafkaServer

_STARTED = time.monotonic()
_DELIVERIES = pytest.StashKey[set[str]]()  # of the worlds that a test has made


class MakeWorld(Protocol):
    def __call__(
        self,
        partitions: int = 4,
        *,
        kafka: KafkaServer | None = None,
        redis_url: str = "",
        topics: dict[str, str] | None = None,
        delivery: str = "at_least_once",
    ) -> World: ...


@pytest.fixture
def make_world(request: pytest.FixtureRequest, make_topic: MakeTopic, tmp_path: Path) -> Iterator[MakeWorld]:
    marker = request.node.get_closest_marker("case")
    worlds: list[World] = []
    deliveries = request.node.stash[_DELIVERIES] = set()

    def make(
        partitions: int = 4,
        *,
        kafka: KafkaServer | None = None,
        redis_url: str = "",
        topics: dict[str, str] | None = None,
        delivery: str = "at_least_once",
    ) -> World:
        broker: KafkaServer = kafka or request.getfixturevalue("kafka")
        url = redis_url or request.getfixturevalue("redis_url")
        deliveries.add(delivery)
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        world = World(
            folder, broker, url, make_topic, partitions=partitions, topics=topics, delivery=delivery
        )
        if marker is not None:
            world.report = lambda account: table.enter(marker.args[0], account)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def kafka_proxy(breakable_kafka: KafkaServer) -> Iterator[Proxy]:
    detour = breakable_kafka.detour
    proxy = Proxy(detour.port, detour.advertised)
    yield proxy
    proxy.close()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(number): the row of the table that the test's accounts go to")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marker = item.get_closest_marker("case")
    if marker is not None and report.failed:
        for delivery in item.stash.get(_DELIVERIES, set()) or {"at_least_once"}:
            table.fail(marker.args[0], delivery)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("STREAMER_FAULTS_TABLE")
    if target:
        table.write(Path(target), time.monotonic() - _STARTED, session.testsfailed)
