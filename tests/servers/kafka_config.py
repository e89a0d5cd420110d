"""The properties of a broker for tests, and whether one answers."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.kafka_doors import PROTOCOLS, Doors

VERSION = "4.3.1"

_SILENT = logging.Logger("a broker that is not up yet")
_SILENT.disabled = True


class Detour(NamedTuple):
    """A second listener: the broker listens on `port` and tells its clients to come to `advertised`.

    Nothing listens there until a test puts a proxy in between.
    """

    port: int
    advertised: int


def broker_properties(
    listen_on: str, port: int, controller_port: int, data: str, detour: Detour, *, doors: Doors
) -> dict[str, str]:
    """One node that is broker and controller, advertised on loopback, and small.

    It has few partitions of each internal topic, no waits that only a cluster needs, and limits low enough
    for tests of session time-outs.
    """
    listeners = [f"PLAINTEXT://{listen_on}:{port}", f"DETOUR://{listen_on}:{detour.port}"]
    advertised = [f"PLAINTEXT://127.0.0.1:{port}", f"DETOUR://127.0.0.1:{detour.advertised}"]
    protocols = {"PLAINTEXT": "PLAINTEXT", "DETOUR": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **PROTOCOLS}
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in protocols.items()),
        "listeners": ",".join(
            [*listeners, *doors.listeners(listen_on), f"CONTROLLER://127.0.0.1:{controller_port}"]
        ),
        "advertised.listeners": ",".join([*advertised, *doors.listeners("127.0.0.1")]),
        **doors.properties(),
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        # Internal topics on a cluster of one.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "2",
        # Groups form at once and lose a dead member soon, under either protocol.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.heartbeat.interval.ms": "200",
        "group.consumer.heartbeat.interval.ms": "1000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # A controller that was killed forgets its broker's session soon, so that a restart takes a second.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        # Two cores and little memory.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "log.cleaner.backoff.ms": "500",
        "log.cleaner.dedupe.buffer.size": "4194304",
        "log.index.size.max.bytes": "1048576",
    }


class Probe:
    """Asks one broker for its metadata, again and again, until it answers."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = AdminClient(
            {
                "bootstrap.servers": bootstrap_servers,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "socket.timeout.ms": 2000,
            },
            logger=_SILENT,
        )

    def answers(self, timeout: float = 0.5) -> bool:
        """Whether the broker says, within `timeout` seconds, that it is part of its cluster."""
        try:
            return bool(self._admin.list_topics(timeout=timeout).brokers)
        except KafkaException:
            return False

    def wait(self, timeout: float) -> bool:
        """Whether it answers within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.answers(min(1.0, timeout)):
                return True
        return False
