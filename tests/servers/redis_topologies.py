"""Redis as a cluster, and behind Sentinels: small, on loopback, and quick to notice that a node is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from tests.servers.process import ServerError, free_port
from tests.servers.redis import RedisServer, start_node

MASTER = "claims"
SLOTS = 16_384
_BUS = 10_000  # how far a node's second port lies above its first


class Topology:
    """Nodes, and how `streamer.state.connection.connect` and `redis:` of a configuration name them."""

    def __init__(self, nodes: list[RedisServer], hosts: list[RedisServer], **options: Any) -> None:
        self.nodes = nodes
        self._hosts = hosts
        self.options = options

    @property
    def urls(self) -> list[str]:
        return [host.url for host in self._hosts]

    @property
    def section(self) -> dict[str, Any]:
        """The section `redis` of a configuration."""
        places = ",".join(url.removeprefix("redis://").removesuffix("/0") for url in self.urls)
        return {"url": f"redis://{places}/0", **self.options}

    def flush(self) -> None:
        """Empty every node that takes writes."""
        for node in self.nodes:
            with redis.Redis.from_url(node.url) as client:
                if client.info("replication")["role"] == "master":
                    client.flushall()

    def stop(self) -> None:
        for server in {*self.nodes, *self._hosts}:
            server.stop()


def start_single(kind: str) -> Topology:
    """One node of this kind: redis, redis-6.2 or valkey."""
    node = start_node(kind)
    return Topology([node], [node])


def start_cluster(size: int = 3) -> Topology:
    """Primaries without replicas. While one is away the others answer."""
    nodes = [
        start_node(
            port=str(_port_with_bus()),
            cluster_enabled="yes",
            cluster_node_timeout="1000",
            cluster_require_full_coverage="no",
        )
        for _ in range(size)
    ]
    clients = [redis.Redis.from_url(node.url) for node in nodes]
    ports = [client.connection_pool.connection_kwargs["port"] for client in clients]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        own = range(number * SLOTS // size, (number + 1) * SLOTS // size)
        client.execute_command("CLUSTER", "ADDSLOTS", *own)
        if number:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
    for client in clients:
        _wait(lambda client=client: whole(client, size), "the cluster to form")  # type: ignore[misc]
        client.close()
    return Topology(nodes, nodes, cluster=True)


def start_sentinels(count: int = 3) -> Topology:
    """A master, its replica, and Sentinels that fail over within a second or two."""
    at_once = {"repl_diskless_sync_delay": "0"}
    master = start_node(**at_once)
    at = redis.Redis.from_url(master.url).connection_pool.connection_kwargs["port"]
    replica = start_node(replicaof=f"127.0.0.1 {at}", **at_once)
    watch = [
        f"sentinel monitor {MASTER} 127.0.0.1 {at} {count // 2 + 1}",
        f"sentinel down-after-milliseconds {MASTER} 500",
        f"sentinel failover-timeout {MASTER} 3000",
    ]
    with redis.Redis.from_url(replica.url) as client:
        _wait(lambda: client.info("replication")["master_link_status"] == "up", "the replica to be in step")
    sentinels = [start_node(sentinel=watch) for _ in range(count)]
    for sentinel in sentinels:
        with redis.Redis.from_url(sentinel.url) as client:
            _wait(lambda client=client: _watches(client, count), "the Sentinels to know each other")  # type: ignore[misc]
    return Topology([master, replica], sentinels, sentinel=MASTER)


def whole(client: redis.Redis, size: int) -> bool:
    """Whether this node of a cluster of `size` sees all of it."""
    info: Any = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == size


def _watches(client: redis.Redis, count: int) -> bool:
    state: Any = client.execute_command("SENTINEL MASTER", MASTER)
    return int(state["num-other-sentinels"]) == count - 1 and int(state["num-slaves"]) == 1


def _port_with_bus() -> int:
    for _ in range(1000):
        port = free_port()
        if port + _BUS < 32_768:  # above it systems take the ports of outgoing connections
            return port
    raise ServerError("no port whose cluster bus lies below the range of outgoing connections")


def _wait(done: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise ServerError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.02)
