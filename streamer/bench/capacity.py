"""From measured figures to workers and partitions: what `streamer plan` says."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from streamer.bench.report import Report
from streamer.errors import UsageError

MEASURED = Path(__file__).with_name("measured.json")
# Of what a worker can do so much is planned with: the rest is for bursts, rebalances and for catching up.
LOAD = 0.7
SPARE = 2  # partitions a worker: a topic that grows needs no new ones soon, and they share evenly


class Row(Struct, omit_defaults=True):
    """A device with a model, as a run of `streamer bench --end-to-end --json` found them.

    Rates are from Kafka to Kafka, for texts of `tokens` tokens on average.
    """

    device: str
    model: str
    precision: str
    machine: str
    date: str
    command: str
    tokens: float
    texts_per_second: float
    tokens_per_second: float
    budget: int
    latency_ms: dict[str, float]
    latency_share: float  # of the speed, at which that latency was measured


class Capacity(Struct):
    """What is needed."""

    workers: int
    partitions: int
    texts_per_second: float
    share: float
    budget: int


def row(report: Report, device: str) -> Row:
    """Of a report with a run from Kafka to Kafka. Raises UsageError for one without."""
    alone, line = report.figure("streamer alone"), report.figure("Kafka to Kafka")
    if alone is None or line is None or not report.latencies or report.broker != "a real broker":
        raise UsageError(
            "the report has no run through a real Kafka: streamer bench --end-to-end --json FILE"
        )
    loaded = max(report.latencies, key=lambda latency: latency.rate)
    return Row(
        device=device,
        model=str(report.model["name"]),
        precision=str(report.model.get("precision", "")),
        machine=report.machine,
        date=report.date,
        command=report.command,
        tokens=report.tokens,
        texts_per_second=line.texts_per_second,
        tokens_per_second=round(line.texts_per_second * report.tokens, 1),
        budget=alone.budget or 0,
        latency_ms={"p50": loaded.ms.p50, "p95": loaded.ms.p95, "p99": loaded.ms.p99},
        latency_share=round(loaded.rate / line.texts_per_second, 2),
    )


def rows(path: Path | None = None) -> list[Row]:
    """The figures that ship with streamer, or those of a file. Raises UsageError."""
    try:
        return msgspec.json.decode((path or MEASURED).read_bytes(), type=list[Row])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} holds no figures of `streamer plan --add`: {error}") from None


def find(known: list[Row], device: str, model: str) -> Row:
    """Raises UsageError for a pair that nobody has measured, and says how to."""
    for each in known:
        if (each.device, each.model) == (device, model):
            return each
    pairs = ", ".join(f"{each.device} with {each.model}" for each in known) or "none"
    raise UsageError(
        f"nobody has measured {model} on {device}; known: {pairs}. On that machine, with a Kafka beside it:\n"
        f"  streamer bench TEXTS --config FILE --end-to-end --json report.json\n"
        f"  streamer plan --add report.json --device {device} --figures figures.json"
    )


def plan(row: Row, rate: float, tokens: float) -> Capacity:
    """For `rate` texts/s of `tokens` tokens on average.

    A worker does as many tokens a second as it did when it was measured, but never more texts: what Kafka,
    Redis and the decoding cost is by text, and was measured with texts of that length only.
    """
    texts = min(row.tokens_per_second / tokens, row.texts_per_second)
    workers = math.ceil(rate / (LOAD * texts))
    return Capacity(
        workers=workers,
        partitions=max(1, SPARE * workers),
        texts_per_second=round(texts, 1),
        share=rate / (workers * texts),
        budget=row.budget,
    )


def save(path: Path, added: Row) -> None:
    """Add a row to a file of figures, in the place of an older one of the same device and model."""
    kept = rows(path) if path.exists() else []
    kept = [each for each in kept if (each.device, each.model) != (added.device, added.model)]
    path.write_bytes(msgspec.json.format(msgspec.json.encode([*kept, added]), indent=1) + b"\n")
