"""The consumer of the retry topics, and the producer that writes to the input topic."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from streamer.errors import StartupError
from streamer.metrics import Metrics
from streamer.shipping import SETTINGS, Shipper
from streamer.statistics import read_statistics

log = logging.getLogger(__name__)

ANSWER = 10.0  # seconds for an answer of the broker
CONSUMER: dict[str, Any] = {
    "auto.offset.reset": "earliest",
    "queued.max.messages.kbytes": 16384,
    "socket.timeout.ms": 10000,
    "statistics.interval.ms": 5000,
}
REQUIRED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
}
PRODUCER: dict[str, Any] = {"transaction.timeout.ms": 30_000, "message.timeout.ms": 10_000}


def consumer(settings: Mapping[str, Any], group: str, metrics: Metrics) -> Consumer:
    """With the settings of the worker's, as far as they fit one that takes partitions one by one.

    Close it: until then it has threads.
    """
    made: Consumer | None = None

    def learn(statistics: str) -> None:
        found = read_statistics(statistics)
        metrics.brokers_up = found.brokers_up
        metrics.member = found.coordinated and made is not None and bool(made.memberid())

    others = "partition.assignment.strategy", "group.instance.id"
    own = {name: value for name, value in settings.items() if name not in others}
    if own.get("group.protocol") != "consumer":
        own["partition.assignment.strategy"] = "cooperative-sticky"
    made = Consumer({**CONSUMER, **own, **REQUIRED, **LOGGED, "stats_cb": learn, "group.id": group})
    return made


def shipper(settings: Mapping[str, Any], transactional_id: str) -> Shipper:
    producer = Producer({**SETTINGS, **settings, **PRODUCER, **LOGGED, "transactional.id": transactional_id})
    return Shipper(
        producer,
        answer=ANSWER,
        explain=lambda error: f"{error.name()}: {error.str()}",
        fenced=f"another process has the transactional id {transactional_id}: give each a "
        "kafka.transactional_id of its own",
    )


def topics_on(consumer: Consumer, prefix: str, levels: Sequence[str]) -> list[str]:
    """The retry topics that there are: of levels that are configured no more too, for records may wait there.

    Raises StartupError when there are none, or no broker.
    """
    try:
        there = consumer.list_topics(timeout=ANSWER).topics
    except KafkaException as error:
        raise StartupError(f"the broker does not tell its topics: {error.args[0].name()}") from None
    found = {name for name in there if re.fullmatch(rf"{re.escape(prefix)}\.\d+[smhd]", name)} | {*levels}
    if not found:
        raise StartupError(
            f"there is nothing to bring back: retry.policy is not delay, and there is no topic {prefix}.*"
        )
    return sorted(found)


def _on_error(error: KafkaError) -> None:
    """What a client goes on after; what it does not comes out of a call."""
    log.warning("%s: %s", error.name(), error.str())


LOGGED: dict[str, Any] = {"logger": log, "error_cb": _on_error}
