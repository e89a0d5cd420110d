"""What contract tests share: every kind of Redis, started when first asked for; a sink of transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import MakeTopic
from tests.contract.transactional_world import World
from tests.servers import KafkaServer
from tests.servers.redis_topologies import Topology, start_cluster, start_sentinels, start_single

REDISES = ("redis-6.2", "redis", "valkey", "cluster", "sentinel")


@pytest.fixture(scope="session")
def start_redis_kind() -> Iterator[Callable[[str], Topology]]:
    """The Redis of this kind, empty."""
    running: dict[str, Topology] = {}
    with ExitStack() as servers:

        def start(kind: str) -> Topology:
            if kind not in running:
                starts = {"cluster": start_cluster, "sentinel": start_sentinels}
                running[kind] = starts[kind]() if kind in starts else start_single(kind)
                servers.callback(running[kind].stop)
            running[kind].flush()
            return running[kind]

        yield start


@pytest.fixture
def world(kafka: KafkaServer, make_topic: MakeTopic) -> Iterator[World]:
    made = World(kafka, make_topic)
    yield made
    made.close()
