"""When to give up, and how the process shows itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from streamer.settings.section import Count, Name, Seconds, Section


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
