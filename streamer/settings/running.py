"""When to give up, and how the process shows itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from streamer.settings.section import Count, Name, Seconds, Section

Delay = Annotated[int, Meta(ge=1, le=31 * 86_400)]


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


class Retry(Section, frozen=True):
    """What becomes of a record that fails for a reason that may pass, such as a model that is away."""

    deadline: Annotated[
        float,
        Meta(
            ge=0,
            le=31 * 86_400,
            description="how long a record is tried in place after its first failure; seconds, or 30s, 15m",
            extra={"duration": True},
        ),
    ] = 300
    policy: Annotated[
        Literal["wait", "dead_letter", "delay"],
        Meta(
            description="what comes after the deadline: wait goes on trying for ever; delay needs "
            "`streamer retry` beside the workers"
        ),
    ] = "wait"
    delays: Annotated[
        tuple[Delay, ...],
        Meta(
            min_length=1,
            max_length=20,
            description="for policy: delay; how long a record waits before it comes back, level after level, "
            "then it is a dead letter; each has a topic, topics.retry with the delay behind it",
            extra={"duration": True},
        ),
    ] = (60, 600, 3600)


class Log(Section, frozen=True):
    """What streamer says of itself, on standard error."""

    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="auto is text on a terminal and JSON lines elsewhere"),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least that is logged")
    ] = "info"
    repeat_s: Annotated[
        Annotated[float, Meta(ge=0, le=86_400)],
        Meta(description="the same warning at most once in so many seconds, with a count of the others"),
    ] = 10


class Ops(Section, frozen=True):
    """Metrics, probes and traces."""

    host: Annotated[Name, Meta(description="the address to listen on; 0.0.0.0 in a container")] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(
            description="serves /metrics, /healthz, /readyz and /startupz; null serves nothing, since "
            "workers of one machine would fight for it; 0 is any"
        ),
    ] = None
    targets: Annotated[
        Name | None,
        Meta(
            description="a folder in which each worker of this machine says where it is, for Prometheus' "
            "file_sd_configs; with port: 0"
        ),
    ] = None
    tracing: Annotated[
        Literal["none", "otlp"],
        Meta(description="otlp sends spans to the collector that the OTEL_* variables name"),
    ] = "none"
