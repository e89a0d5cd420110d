"""A real Kafka broker, from the first place where one is to be had."""

from __future__ import annotations

import os
from typing import Protocol

from tests.servers.kafka_config import Detour, Probe
from tests.servers.kafka_docker import DockerKafka, docker_answers
from tests.servers.kafka_doors import Doors
from tests.servers.kafka_jvm import JvmKafka, fetch_jars, missing_tools
from tests.servers.process import ServerError

VARIABLE = "STREAMER_TEST_BOOTSTRAP_SERVERS"


class KafkaServer(Protocol):
    """A broker for tests. `kill`, `suspend` and the like need one that we started (`breakable`)."""

    bootstrap_servers: str
    origin: str
    breakable: bool

    @property
    def detour(self) -> Detour:
        """Its second listener, for a proxy; only a `breakable` one has it."""

    @property
    def doors(self) -> Doors:
        """Its listeners with TLS and users; only a `breakable` one has them."""

    def kill(self) -> None:
        """SIGKILL: a crash. What was acknowledged is kept."""

    def restart(self) -> None:
        """Start again on the same port and data and wait until it answers; one that runs is ended first."""

    def suspend(self) -> None:
        """Freeze it: connections stay open and nothing answers."""

    def resume(self) -> None:
        """Thaw it."""

    def recover(self) -> None:
        """Make it whole after a test that broke it: thawed, running, answering."""

    def stop(self) -> None:
        """End it for good and remove its data."""


class ExternalKafka:
    """Somebody else's broker, named by the environment: used, and never stopped."""

    breakable = False

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.origin = f"the broker that {VARIABLE} names"
        if not Probe(bootstrap_servers).wait(10):
            raise ServerError(
                f"no Kafka broker answers at {bootstrap_servers}, which {VARIABLE} names: start it, "
                "correct the variable, or unset it and the tests start their own"
            )

    @property
    def detour(self) -> Detour:
        """Refused."""
        raise ServerError(f"no way around {self.origin}: use the fixture breakable_kafka")

    @property
    def doors(self) -> Doors:
        """Refused."""
        raise ServerError(f"nothing is known of users at {self.origin}: use the fixture breakable_kafka")

    def kill(self) -> None:
        """Refused."""
        self._refuse("kill")

    def restart(self) -> None:
        """Refused."""
        self._refuse("restart")

    def suspend(self) -> None:
        """Refused."""
        self._refuse("suspend")

    def resume(self) -> None:
        """Refused."""
        self._refuse("resume")

    def recover(self) -> None:
        """Nothing was broken."""

    def stop(self) -> None:
        """Leave it running: it is not ours."""

    def _refuse(self, what: str) -> None:
        raise ServerError(f"cannot {what} {self.origin}: use the fixture breakable_kafka")


def prepare_kafka() -> None:
    """Download what `start_kafka` will need, so that no test's time-out has to allow for it."""
    if not os.environ.get(VARIABLE) and not docker_answers() and not missing_tools():
        fetch_jars()


def start_kafka(external: bool = True) -> KafkaServer:
    """Start a broker (or, unless `external` is false, take the one that the environment names)."""
    if external and (bootstrap_servers := os.environ.get(VARIABLE)):
        return ExternalKafka(bootstrap_servers)
    if docker_answers():
        return DockerKafka()
    if missing := missing_tools():
        raise ServerError(
            f"no Kafka for the tests: {VARIABLE} is not set, no Docker engine answers, and "
            f"{' and '.join(missing)} cannot be found. Install Java 17 or newer and Maven (Debian, Ubuntu: "
            "apt-get install openjdk-17-jre-headless maven), or start Docker, or name a broker: "
            f"{VARIABLE}=127.0.0.1:9092 make test"
        )
    return JvmKafka()
