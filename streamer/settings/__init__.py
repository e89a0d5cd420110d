"""Every key of the configuration, with its type, default, bounds and meaning; `streamer.config` fills them.

The descriptions are the ones in docs/configuration.md: a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, to_builtins

from streamer.redaction import hide
from streamer.settings.compute import Batching, Fake, Model, Window
from streamer.settings.running import Limits, Log, Ops, Retry
from streamer.settings.section import Section
from streamer.settings.transport import Deduplication, Input, Kafka, Redis, Topics


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
    retry: Retry = Retry()
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
