"""Where records come from and go to, and what remembers them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from streamer.codec import Format, IdSource
from streamer.settings.section import Bytes, Name, Properties, Section, Topic


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
        Meta(pattern=r"^(redis|rediss|unix)://", description="redis://, rediss:// (TLS) or unix:// address"),
    ] = "redis://localhost:6379/0"


class Deduplication(Section, frozen=True):
    """Whether an id is scored once."""

    enabled: Annotated[bool, Meta(description="skip records whose id another record brought before")] = True
    ttl: Annotated[
        int,
        Meta(
            ge=1,
            le=366 * 86_400,
            description="how long an id is remembered, in whole seconds or as 30s, 15m, 12h, 7d; keep it "
            "above the input topic's retention and the oldest replay",
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
