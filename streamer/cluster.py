"""What the broker says of the topics at start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from streamer.errors import StartupError

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds for each answer
ATTEMPTS = 4  # in them: a broker that refuses is told before they are over


class Cluster(NamedTuple):
    """Partitions by topic; what tells the input from others of its name; the bytes that a batch may have, by
    topic, where the broker tells it."""

    partitions: dict[str, int]
    generations: dict[str, str]
    limits: dict[str, int]


def describe(settings: Mapping[str, Any], input: str, outputs: list[str]) -> Cluster:
    """Ask the broker that `settings` name. Raises StartupError when it is away or a topic is missing."""
    from confluent_kafka import KafkaError, KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import ConfigResource
    from confluent_kafka.admin._resource import ResourceType

    reasons: list[KafkaError] = []

    def keep(error: KafkaError) -> None:
        """A client goes on after these; when its time is up, the last one is why."""
        log.debug("admin: %s", error)
        reasons.append(error)

    client: dict[str, Any] = {**settings, "error_cb": keep, "logger": log}
    admin = AdminClient(client)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            metadata = admin.list_topics(timeout=TIMEOUT / ATTEMPTS)
            break
        except KafkaException as error:
            admin.poll(0)  # for `keep`, which is told what the exception does not say: refused, TLS, SASL
            why = reasons[-1].str() if reasons else error.args[0].name()
            final = {KafkaError._AUTHENTICATION, KafkaError._SSL} & {reason.code() for reason in reasons}
            if attempt == ATTEMPTS or final:
                raise StartupError(
                    f"no Kafka broker answers at {settings['bootstrap.servers']} ({why}): "
                    "check kafka.bootstrap_servers and kafka.properties"
                ) from error
    known, needed = metadata.topics, [input, *outputs]
    missing = [name for name in needed if name not in known or not known[name].partitions]
    if missing:
        raise StartupError(
            f"no topic {', '.join(missing)}: create it with `streamer topics create`; if it is there, this "
            "user has no right to see it (docs/security.md)"
        )
    partitions = {name: len(known[name].partitions) for name in needed}
    if metadata.controller_id not in metadata.brokers:
        # librdkafka's in-process broker: it would leave the questions below unanswered.
        return Cluster(partitions, {}, {})
    asked = admin.describe_topics(TopicCollection([input]), request_timeout=TIMEOUT)
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in outputs]
    described = admin.describe_configs(resources, request_timeout=TIMEOUT)
    generations: dict[str, str] = {}
    limits: dict[str, int] = {}
    try:
        # 12 of the 22 characters tell two topics apart, and every claim carries them.
        generations = {name: str(future.result().topic_id)[:12] for name, future in asked.items()}
        # A batch above a topic's limit is refused whole, and what is under way behind it would overtake it.
        for resource, future in described.items():
            limits[resource.name] = int(future.result()["max.message.bytes"].value)
    except KafkaException as error:
        log.warning(
            "the broker does not describe the topics: claims outlive a topic that is created anew, and "
            "what is too large for its topic may be overtaken by what is behind it: %s",
            error.args[0].str(),
        )
    return Cluster(partitions, generations, limits)
