"""Every key of the configuration, with its type, default, bounds and meaning; `streamer.config` fills them.

The descriptions are the ones in docs/configuration.md: a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, to_builtins

from streamer.codec import Format, IdSource
from streamer.redaction import hide

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Microseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Topic = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Name = Annotated[str, Meta(min_length=1)]
# Values are strings once they are loaded: numbers and booleans of the file are written out for librdkafka.
Properties = dict[str, str]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration. What it prints of itself hides secrets."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, value if isinstance(value, Section) else hide(name, value)) for name, value in fields]


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
        Topic, Meta(description="reserved for delayed retries: created and checked, not used yet")
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


class Window(Section, frozen=True):
    """When the records that were read go on together; the first bound that is reached closes it."""

    max_records: Annotated[Count, Meta(description="records in a window")] = 512
    max_bytes: Annotated[Bytes, Meta(description="bytes of records in a window")] = 4 << 20
    max_age_ms: Annotated[Milliseconds, Meta(description="age of its first record, in milliseconds")] = 50
    linger_ms: Annotated[
        Milliseconds,
        Meta(description="age at which it closes when the device has nothing to do, in milliseconds"),
    ] = 3
    max_in_flight_bytes: Annotated[
        Bytes,
        Meta(description="bytes of records read and not yet committed; beyond it the partitions are paused"),
    ] = 64 << 20


class Batching(Section, frozen=True):
    """What the device sees at once."""

    sizing: Annotated[
        Literal["auto", "fixed"],
        Meta(description="auto fits a batch to the device's measured speed; fixed uses max_tokens"),
    ] = "auto"
    max_texts: Annotated[Count, Meta(description="texts in a batch")] = 64
    max_tokens: Annotated[Count, Meta(description="tokens in a batch, padding included")] = 16_384
    max_latency_ms: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600_000,
            description="the longest that a batch may take, in milliseconds; for sizing: auto",
        ),
    ] = 1000


class Model(Section, frozen=True):
    """What scores the texts."""

    backend: Annotated[
        Literal["torch", "fake"], Meta(description="torch runs a model; fake sleeps, for capacity tests")
    ] = "torch"
    name: Annotated[
        Name, Meta(description="a shipped model (sentiment), a folder, or a Hugging Face hub name")
    ] = "sentiment"
    revision: Annotated[
        Name | None, Meta(description="the hub revision to pin; null takes the newest and logs which it was")
    ] = None
    task: Annotated[Literal["classification"], Meta(description="what is made of the model's output")] = (
        "classification"
    )
    device: Annotated[Name, Meta(description="auto, cpu, cuda, cuda:1")] = "auto"
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], Meta(description="of the weights; auto takes bf16 where it is fast")
    ] = "auto"
    quantize: Annotated[Literal["none"], Meta(description="none; there is no other yet")] = "none"
    max_length: Annotated[
        Count | None, Meta(description="tokens after which a text is cut; null takes the model's own limit")
    ] = None


class Fake(Section, frozen=True):
    """The stand-in of model.backend: fake. It sleeps as long as a model would compute."""

    base_ms: Annotated[Milliseconds, Meta(description="milliseconds a batch")] = 1.0
    per_text_us: Annotated[Microseconds, Meta(description="microseconds a text")] = 20.0
    per_token_us: Annotated[Microseconds, Meta(description="microseconds a token")] = 0.0


class Input(Section, frozen=True):
    """How a record's value becomes a text."""

    format: Annotated[Format, Meta(description="of the input values; text is plain UTF-8")] = "json"
    id_from: Annotated[
        tuple[IdSource, ...],
        Meta(min_length=1, description="where a record's id is looked for, in this order"),
    ] = ("header", "field", "content", "coordinate")
    max_bytes: Annotated[Bytes, Meta(description="a longer value is a dead letter")] = 1_000_000


class Limits(Section, frozen=True):
    """Deadlines, in seconds, and when to give up."""

    drain_s: Annotated[Seconds, Meta(description="after SIGTERM, for finishing what the device holds")] = 20
    revoke_s: Annotated[Seconds, Meta(description="in a rebalance, for finishing what the device holds")] = 5
    hang_s: Annotated[
        Seconds, Meta(description="a batch that takes longer ends the process with exit code 6")
    ] = 300
    max_attempts: Annotated[
        int,
        Meta(ge=2, le=1000, description="starts after which a record that kills its worker is a dead letter"),
    ] = 3
    dead_letter_share: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="dead letters among the last 200 records; more end the process with exit code 4"),
    ] = 0.5
    dead_letters_in_a_row: Annotated[
        Count | None, Meta(description="dead letters without a result between; more end it likewise")
    ] = 100
    dead_letters_counted: Annotated[
        Literal["all", "processing"],
        Meta(
            description="processing leaves out input that cannot be decoded: the producer's fault, not ours"
        ),
    ] = "all"


class Log(Section, frozen=True):
    """What streamer says of itself, on standard error."""

    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="auto is text on a terminal and JSON lines elsewhere"),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least that is logged")
    ] = "info"


class Ops(Section, frozen=True):
    """The HTTP endpoints /metrics, /healthz and /readyz."""

    host: Annotated[Name, Meta(description="the address to listen on; 0.0.0.0 in a container")] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(description="null serves nothing, since workers of one machine would fight for it; 0 is any"),
    ] = None


class Config(Section, frozen=True):
    """The whole configuration."""

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    delivery: Annotated[
        Literal["at_least_once", "exactly_once"],
        Meta(
            description="exactly_once puts results, dead letters and offsets into one Kafka transaction, for "
            "readers with isolation.level=read_committed; see guarantees.md"
        ),
    ] = "at_least_once"
    redis: Redis = Redis()
    deduplication: Deduplication = Deduplication()
    window: Window = Window()
    batching: Batching = Batching()
    model: Model = Model()
    fake: Fake = Fake()
    input: Input = Input()
    limits: Limits = Limits()
    ops: Ops = Ops()
    log: Log = Log()

    def redacted(self) -> dict[str, Any]:
        """All of it as plain values for a log, without passwords."""
        plain: dict[str, Any] = to_builtins(self)
        return {
            section: {key: hide(key, value) for key, value in values.items()}
            if isinstance(values, Mapping)
            else values
            for section, values in plain.items()
        }
