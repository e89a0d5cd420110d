"""What a benchmark says: one value, written as JSON and shown as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from msgspec import Struct
from rich.table import Table

from streamer.bench.arithmetic import operations
from streamer.bench.turns import Turn


class Figure(Struct, omit_defaults=True):
    """One case. Rates are of the turn in the middle; None where a case does not know.

    `padding` is what the device computed for each token of text, `mfu` the share of `Report.peak`. `budgets`
    are those of the first turn: seconds, tokens.
    """

    case: str
    texts_per_second: float
    seconds: list[float]
    tokens_per_second: float | None = None
    padding: float | None = None
    mfu: float | None = None
    batch_ms: Percentiles | None = None
    budget: int | None = None
    budgets: list[tuple[float, int]] = []


class Percentiles(Struct):
    p50: float
    p95: float
    p99: float


class Latency(Struct):
    """From Kafka to Kafka at a steady rate, in milliseconds; `share` is that rate of what it can do."""

    rate: float
    texts: int
    ms: Percentiles
    share: float | None = None


class Report(Struct, omit_defaults=True):
    """`peak` in FLOP/s, and where it is from. `tokens` and `characters` are those of a text, on average."""

    date: str
    machine: str
    command: str
    streamer: str
    model: dict[str, Any]
    texts: int
    tokens: float
    characters: float
    peak: float
    peak_from: str
    figures: list[Figure]
    broker: str = ""
    latencies: list[Latency] = []

    def figure(self, case: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.case == case), None)


def percentiles(values: Sequence[float]) -> Percentiles:
    """Of at least two values, in their unit."""
    cuts = quantiles(values, n=100, method="inclusive")
    return Percentiles(*(round(cuts[at - 1], 3) for at in (50, 95, 99)))


def figure(case: str, turns: Sequence[Turn], folder: Path | None, peak: float) -> Figure:
    """The median of the turns, all of the same texts."""
    seconds = median(turn.seconds for turn in turns)
    turn = turns[0]
    found = Figure(case, round(len(turn.labels) / seconds, 2), [round(turn.seconds, 4) for turn in turns])
    if turn.tokens:
        found.tokens_per_second = round(turn.tokens / seconds, 1)
        found.padding = round(sum(t.computed for t in turns) / sum(t.tokens for t in turns), 4)
        work = None if folder is None else operations(folder, turn.tokens, turn.squares)
        if work is not None:
            found.mfu = round(work / seconds / peak, 4)
    services = [1000 * service for each in turns for service in each.services]
    if len(services) > 1:
        found.batch_ms = percentiles(services)
    if turn.budgets:
        found.budget, found.budgets = turns[-1].budgets[-1][1], turn.budgets
    return found


def table(report: Report) -> Table:
    """A row for each case; the ratio is to the first of them, the time of a batch its median and p99."""
    shown = Table(title=f"{report.texts} texts of {report.tokens:.0f} tokens, {report.model['name']}")
    for name in ("case", "texts/s", "ratio", "tokens/s", "padding", "MFU", "batch ms", "budget"):
        shown.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    first = report.figures[0].texts_per_second
    for each in report.figures:
        batch = each.batch_ms
        shown.add_row(
            each.case,
            f"{each.texts_per_second:,.1f}",
            f"{each.texts_per_second / first:.2f}",
            "" if each.tokens_per_second is None else f"{each.tokens_per_second:,.0f}",
            "" if each.padding is None else f"{each.padding:.3f}",
            "" if each.mfu is None else f"{each.mfu:.1%}",
            "" if batch is None else f"{batch.p50:.0f} / {batch.p99:.0f}",
            "" if each.budget is None else f"{each.budget:,}",
        )
    return shown


def latency_table(report: Report) -> Table:
    """A row for each rate."""
    shown = Table(title=f"latency from Kafka to Kafka, {report.broker}")
    for name in ("texts/s", "of what it can do", "texts", "p50 ms", "p95 ms", "p99 ms"):
        shown.add_column(name, justify="right")
    for each in report.latencies:
        share = "" if each.share is None else f"{each.share:.0%}"
        times = (f"{value:.1f}" for value in (each.ms.p50, each.ms.p95, each.ms.p99))
        shown.add_row(f"{each.rate:,.0f}", share, f"{each.texts:,}", *times)
    return shown
