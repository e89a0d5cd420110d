"""Where records come from and go to, and what remembers them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from streamer.codec import Format, IdSource
from streamer.settings.section import Bytes, Count, Name, Properties, Section, Topic


class Kafka(Section, frozen=True):
    """The brokers, and librdkafka's own settings."""

    bootstrap_servers: Annotated[Name, Meta(description="host:port of one or more brokers, by commas")] = (
        "localhost:9092"
    )
    group_id: Annotated[
        Name, Meta(description="consumer group; workers of one group share the partitions")
    ] = "streamer"
    transactional_id: Annotated[
        Name | None,
        Meta(
            description="for delivery: exactly_once; no two workers at a time may have the same. null is "
            "kafka.group_id with the consumer's group.instance.id, or else with the host's name (of the pod, "
            "on Kubernetes)"
        ),
    ] = None
    transaction_interval_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="for delivery: exactly_once; milliseconds from one transaction to the next: longer "
            "ones cost less, and results are seen later",
        ),
    ] = 100
    properties: Annotated[
        Properties, Meta(description="librdkafka settings of every client: security, timeouts")
    ] = field(default_factory=dict)
    consumer: Annotated[Properties, Meta(description="librdkafka settings of the consumer alone")] = field(
        default_factory=dict
    )
    producer: Annotated[Properties, Meta(description="librdkafka settings of the producer alone")] = field(
        default_factory=dict
    )


class Topics(Section, frozen=True):
    """Where records come from and go to."""

    input: Annotated[Topic, Meta(description="texts to score")] = "texts.in"
    output: Annotated[Topic, Meta(description="results")] = "sentiment.out"
    dead_letters: Annotated[
        Topic, Meta(description="records that cannot become a result, with the reason")
    ] = "texts.dlq"
    retry: Annotated[
        Topic,
        Meta(
            description="what the topics of retry.delays begin with: texts.retry.1m, for retry.policy: delay"
        ),
    ] = "texts.retry"


class Redis(Section, frozen=True):
    """Claims of deduplication and the index of dead letters."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(redis|rediss|unix)://",
            description="redis://, rediss:// (TLS) or unix:// address; for a cluster or Sentinels several "
            "host:port, by commas",
        ),
    ] = "redis://localhost:6379/0"
    username: Annotated[Name | None, Meta(description="of the ACL; null is the address's, if it has one")] = (
        None
    )
    password: Annotated[Name | None, Meta(description="null is the address's, if it has one")] = None
    cluster: Annotated[bool, Meta(description="it is a Redis Cluster, and url names some of its nodes")] = (
        False
    )
    sentinel: Annotated[
        Name | None,
        Meta(description="the name of the master that Sentinels watch, and url names the Sentinels"),
    ] = None
    sentinel_password: Annotated[
        Name | None, Meta(description="of the Sentinels themselves; null is none")
    ] = None
    ca: Annotated[
        Name | None,
        Meta(description="for rediss://, a PEM file of the authorities to trust; null is the system's"),
    ] = None
    certificate: Annotated[
        Name | None, Meta(description="for rediss://, a PEM file of a certificate to show; null is none")
    ] = None
    key: Annotated[Name | None, Meta(description="a PEM file of its private key")] = None

    @property
    def urls(self) -> list[str]:
        """The address of each host in `url`."""
        scheme, _, rest = self.url.partition("://")
        end = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
        user, at, hosts = rest[:end].rpartition("@")
        return [f"{scheme}://{user}{at}{host}{rest[end:]}" for host in hosts.split(",")]


class Deduplication(Section, frozen=True):
    """Whether an id is scored once."""

    enabled: Annotated[bool, Meta(description="skip records whose id another record brought before")] = True
    ttl: Annotated[
        int,
        Meta(
            ge=1,
            le=366 * 86_400,
            description="how long an id is remembered at least, in whole seconds or as 30s, 15m, 12h, 7d; "
            "keep it above the input topic's retention and the oldest replay",
            extra={"duration": True},
        ),
    ] = 604_800
    on_outage: Annotated[
        Literal["wait", "process"],
        Meta(description="while Redis is away: wait, or process and risk duplicates"),
    ] = "wait"


class Input(Section, frozen=True):
    """How a record's value becomes a text."""

    format: Annotated[Format, Meta(description="of the input values; text is plain UTF-8")] = "json"
    id_from: Annotated[
        tuple[IdSource, ...],
        Meta(min_length=1, description="where a record's id is looked for, in this order"),
    ] = ("header", "field", "content", "coordinate")
    max_bytes: Annotated[Bytes, Meta(description="a longer value is a dead letter")] = 1_000_000
    max_headers: Annotated[Count, Meta(description="a record with more headers is a dead letter")] = 1000

    @property
    def decoding(self) -> tuple[Format, tuple[IdSource, ...], int, int]:
        """What a Decoder is made of."""
        return self.format, self.id_from, self.max_bytes, self.max_headers
