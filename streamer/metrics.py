# ruff: noqa: RUF009 - what is called for a default returns a dataclass field
"""Every figure that streamer keeps of itself, with the name and the meaning it has for Prometheus.

The engine's thread writes plain numbers and others only read them, so there is no lock. `exposition.py` makes
of each field what /metrics shows, and docs/metrics.md lists them: to add a figure, add a field here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from streamer.records import TopicPartition

PREFIX = "streamer_"
Kind = Literal["counter", "gauge", "histogram", "info", "age"]

# Upper bounds: three to a decade.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
LONG_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


@dataclass(frozen=True, slots=True)
class Description:
    """How a field is shown. An `age` holds a time of the engine's clock and is shown as seconds since."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()  # values of the label that are there, as 0, before anything was counted

    @property
    def shown_as(self) -> str:
        """Its whole name; a histogram has `_bucket`, `_sum` and `_count` of it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


class Histogram:
    """Counts by upper bound, as Prometheus has them, but not yet added up. `sum` is of all values.

    >>> waits = Histogram((0.1, 1.0))
    >>> for seconds in (0.1, 0.5, 9.0):
    ...     waits.observe(seconds)
    >>> waits.counts, round(waits.sum, 1)
    ([1, 1, 1], 9.6)
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: beyond all bounds
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _shown(description: Description, initial: Any) -> Any:
    if callable(initial):
        return field(default_factory=initial, metadata={"description": description})
    return field(default=initial, metadata={"description": description})


def counter(name: str, help: str, *labels: str, known: Iterable[str] = (), unknown: bool = False) -> Any:
    """A number that grows; with labels, a Counter. `unknown`: it is absent, as None, until it is set."""
    description = Description("counter", name, help, labels, tuple(known))
    return _shown(description, Counter if labels else None if unknown else 0)


def gauge(name: str, help: str, *labels: str, unknown: bool = False) -> Any:
    """A number as it is now."""
    return _shown(Description("gauge", name, help, labels), dict if labels else None if unknown else 0)


def histogram(name: str, help: str, bounds: tuple[float, ...]) -> Any:
    return _shown(Description("histogram", name, help), lambda: Histogram(bounds))


def info(name: str, help: str, *labels: str) -> Any:
    """Facts as labels of a 1; absent while empty."""
    return _shown(Description("info", name, help, labels), dict)


def age(name: str, help: str, initial: float | None) -> Any:
    """Seconds since a time of the engine's clock: absent for None and 0, and 0 for infinity."""
    return _shown(Description("age", name, help), initial)


@dataclass(slots=True)
class Metrics:
    """Plain numbers since the start. What leaves counts once it is written."""

    # -- records ---------------------------------------------------------------------------------------------
    records: int = counter("records", "Records read.")
    results: int = counter("results", "Results written.")
    dead: Counter[str] = counter("dead_letters", "Dead letters written, by reason.", "reason")
    skipped: Counter[str] = counter(
        "skipped",
        "Records that need no result: tombstone, same_window (the id came before in this window), duplicate "
        "(another record holds the id), redelivered (its own result is written already), revoked.",
        "reason",
        known=("tombstone", "same_window", "duplicate", "redelivered"),
    )
    delayed: int = counter("delayed", "Records written to a retry topic.")
    end_to_end: Histogram = histogram(
        "end_to_end_seconds",
        "From a record's timestamp to its result being written; of the newest record of each release.",
        LONG_SECONDS,
    )

    # -- the window and what waits ---------------------------------------------------------------------------
    window_records: Histogram = histogram("window_records", "Records of a window when it closes.", COUNTS)
    window_wait: Histogram = histogram(
        "window_wait_seconds", "From a window's first record to its closing.", SECONDS
    )
    queues: Mapping[str, int] = gauge(
        "queue_depth",
        "What waits, in records (window, claims, planned), batches (device) or releases (publishing).",
        "queue",
    )
    in_flight_records: int = gauge("in_flight_records", "Records read and not yet on their way out.")
    in_flight_bytes: int = gauge("in_flight_bytes", "Bytes of records read and not yet written.")
    oldest_at: float = age(
        "oldest_unfinished_seconds",
        "Since the oldest unfinished record was read; 0 without one.",
        math.inf,
    )
    paused: bool = gauge("paused", "1 while reading is paused: the bound on bytes in flight is reached.")

    # -- batches and the device ------------------------------------------------------------------------------
    batches: int = counter("batches", "Batches inferred.")
    failed_batches: Counter[str] = counter(
        "batch_failures", "Batches that failed as a whole, by the class of the error.", "error"
    )
    texts: int = counter("texts", "Texts inferred.")
    tokens: int = counter("tokens", "Tokens inferred, without padding.")
    computed_tokens: int = counter("computed_tokens", "Tokens that the device computed on, padding included.")
    batch_texts: Histogram = histogram("batch_texts", "Texts of a batch.", COUNTS)
    batch_tokens: Histogram = histogram("batch_tokens", "Tokens of a batch, padding included.", TOKENS)
    batch_seconds: Histogram = histogram(
        "batch_seconds", "Service time: how long the device had a batch.", SECONDS
    )
    device_busy: float = counter(
        "device_busy_seconds", "Time in which the device had at least one batch; they may overlap."
    )
    budget_tokens: int = gauge("budget_tokens", "Tokens that a batch may hold, padding included.")
    batch_at: float | None = age("last_batch_age_seconds", "Since a batch came back in good order.", None)
    device_busy_since: float = age(
        "device_waiting_seconds",
        "Since the device, with work all the while, gave back no batch in good order; 0 without work.",
        math.inf,
    )
    flops: float | None = counter(
        "model_flops",
        "Floating-point operations of the model for the texts, without padding; absent where not known.",
        unknown=True,
    )
    peak_flops: float | None = gauge(
        "device_peak_flops",
        "Floating-point operations a second that the device's data sheet promises; absent where not known.",
        unknown=True,
    )
    attention_fallback: bool | None = gauge(
        "attention_fallback",
        "1 if the model failed the self-test of attention without padding, and batches are padded.",
        unknown=True,
    )

    # -- Kafka and Redis -------------------------------------------------------------------------------------
    assigned: int = gauge("assigned_partitions", "Partitions assigned to this worker.")
    lag: Mapping[TopicPartition, int] = gauge(
        "lag_records",
        "Records of a partition that are not written yet; absent while unknown.",
        "topic",
        "partition",
    )
    lag_unknown: int = gauge("lag_unknown_partitions", "Assigned partitions whose lag is not known.")
    rebalances: Counter[str] = counter(
        "rebalances",
        "Times that partitions were assigned, revoked or lost.",
        "event",
        known=("assigned", "revoked", "lost"),
    )
    member: bool = gauge(
        "group_member", "1 while this worker is a member of its group, with or without partitions."
    )
    brokers_up: int | None = gauge(
        "kafka_brokers_up", "Brokers that the consumer is connected to.", unknown=True
    )
    kafka_errors: Counter[tuple[str, str]] = counter(
        "kafka_errors", "What librdkafka reported, by client and its name of the error.", "client", "error"
    )
    commits: Histogram = histogram(
        "commit_seconds", "From sending an offset commit to the broker's answer.", SECONDS
    )
    transactions: Counter[str] = counter(
        "transactions",
        "Transactions that ended, by outcome.",
        "outcome",
        known=("committed", "aborted"),
    )
    transaction_seconds: Histogram = histogram(
        "transaction_seconds", "From a transaction's beginning to its end.", SECONDS
    )
    redis_up: bool | None = gauge("redis_up", "1 if Redis answered when last asked.", unknown=True)
    redis_errors: Counter[str] = counter("redis_errors", "Calls that failed, by operation.", "operation")
    retries: Counter[str] = counter(
        "retries", "Times that the same work waited to be tried again, by stage.", "stage"
    )

    # -- the process -----------------------------------------------------------------------------------------
    polled_at: float = age("step_age_seconds", "Since the engine's last step began.", 0.0)
    model: Mapping[str, str] = info(
        "model_info", "The model.", "name", "revision", "device", "precision", "quantize", "attention", "path"
    )
    worker: Mapping[str, str] = info(
        "worker_info", "This worker.", "version", "group", "topic", "delivery", "backend", "on_outage"
    )

    # -- not shown, but read by those who show ---------------------------------------------------------------
    stage: str = "starting"  # for /startupz: what it is doing
    device_uuid: str | None = None  # by which the driver knows the model's device
    flops_of_text: tuple[float, float, float] | None = None  # c, a, b: n tokens take c + a * n + b * n * n


@dataclass(slots=True)
class DeviceFigures:
    """What the driver says of the device, read when scraped. Absent without an NVIDIA device."""

    utilisation: float = gauge("device_utilisation_ratio", "Share of time in which the device ran anything.")
    memory_used: int = gauge("device_memory_used_bytes", "Device memory in use, by anybody.")
    memory_total: int = gauge("device_memory_total_bytes", "Device memory.")
    power: float = gauge("device_power_watts", "Power drawn now.")
    temperature: float = gauge("device_temperature_celsius", "Temperature of the chip.")


@dataclass(slots=True)
class Verdicts:
    """What /healthz and /readyz say, at the moment of the scrape."""

    healthy: bool = gauge("healthy", "1 if /healthz says yes.")
    ready: bool = gauge("ready", "1 if /readyz says yes.")


ALL = (Metrics, Verdicts, DeviceFigures)


def described(of: type[Metrics] | type[Verdicts] | type[DeviceFigures]) -> list[tuple[str, Description]]:
    """The fields that are shown, in order: (field, description)."""
    return [
        (each.name, each.metadata["description"]) for each in fields(of) if "description" in each.metadata
    ]
