"""Kafka clients for commands: bounded in time, and plain about what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from streamer.app import kafka_settings
from streamer.errors import ConfigurationError, StartupError
from streamer.settings import Config

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import ClusterMetadata

Client = TypeVar("Client")
_reported: list[str] = []
# librdkafka writes each failed connection to standard error otherwise, twenty times a second.
_SILENT = logging.Logger("librdkafka")
_SILENT.disabled = True

# Where the settings of a worker's clients are.
KEYS = "kafka.properties, kafka.consumer or kafka.producer"
TIMEOUT = 5.0  # seconds for any answer
# A command reads beside the group, not in it: what makes a member of a consumer is left out.
MEMBERSHIP = ("group.", "partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms")


def admin(config: Config) -> AdminClient:
    """Raises ConfigurationError when librdkafka refuses the settings; connects later."""
    from confluent_kafka.admin import AdminClient

    return _make(AdminClient, kafka_settings(config, {}), "kafka.properties")


def producer(config: Config, own: Mapping[str, Any]) -> Producer:
    """With the configured settings and over them `own`. Raises ConfigurationError."""
    from confluent_kafka import Producer

    settings = {**kafka_settings(config, config.kafka.producer), **own}
    return _make(Producer, settings, "kafka.properties or kafka.producer")


def observer(config: Config, *, eof: bool = False) -> Consumer:
    """A consumer that joins no group and commits nothing. Raises ConfigurationError."""
    from confluent_kafka import Consumer

    settings = kafka_settings(config, config.kafka.consumer)
    settings = {name: value for name, value in settings.items() if not name.startswith(MEMBERSHIP)}
    # librdkafka wants a group's name of every consumer; one that only assigns never tells the broker.
    settings |= {"group.id": "streamer-observer", "enable.auto.commit": False, "enable.partition.eof": eof}
    # What a worker wrote in a transaction that was aborted is nobody's result.
    settings |= {"isolation.level": "read_committed"}
    return _make(Consumer, settings, "kafka.properties or kafka.consumer")


def member(config: Config) -> Consumer:
    """The consumer as the worker makes it; it joins once it subscribes. Raises ConfigurationError."""
    from confluent_kafka import Consumer

    settings = kafka_settings(config, config.kafka.consumer, group=True)
    return _make(Consumer, settings, "kafka.properties or kafka.consumer")


def describe_cluster(client: AdminClient | Producer | Consumer, config: Config) -> ClusterMetadata:
    """Its brokers and topics. Raises StartupError when no broker answers in time."""
    from confluent_kafka import KafkaException

    _reported.clear()
    try:
        return client.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        client.poll(0)  # for the callback that tells what the exception does not: refused, unknown host, SASL
        why = _reported[0] if _reported else error.args[0].name()
        raise StartupError(
            f"no Kafka broker answers at {config.kafka.bootstrap_servers} within {TIMEOUT:g} s ({why}): "
            "start it, or set kafka.bootstrap_servers (STREAMER__KAFKA__BOOTSTRAP_SERVERS), and "
            "kafka.properties if it wants TLS or SASL"
        ) from None


def partitions_of(client: Producer | Consumer, config: Config, topic: str) -> list[int]:
    """The partitions of a topic. Raises StartupError when there is no broker or no topic."""
    found = describe_cluster(client, config).topics.get(topic)
    if found is None or not found.partitions:
        raise StartupError(
            f"there is no topic {topic}: create it with `streamer topics create`, or name another"
        )
    return sorted(found.partitions)


@contextmanager
def settings_of(keys: str) -> Iterator[None]:
    """Which settings there are, librdkafka knows. Raises ConfigurationError, naming ours that hold them."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise ConfigurationError(f"{keys}: {error.args[0].str()}") from None


def _make(kind: Callable[[dict[str, Any]], Client], settings: dict[str, Any], keys: str) -> Client:
    with settings_of(keys):
        return kind({**settings, "error_cb": _note, "logger": _SILENT})


def _note(error: KafkaError) -> None:
    """Errors that a client goes on after: what a command gives as the reason when its time is up."""
    _reported.append(error.str())
