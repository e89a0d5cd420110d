"""The report as a picture."""

from __future__ import annotations

from pathlib import Path

from streamer.bench.report import Report
from streamer.errors import StartupError


def require() -> None:
    """Before anything is measured. Raises StartupError."""
    try:
        import matplotlib as _matplotlib
    except ImportError:
        raise StartupError(
            "--plot needs matplotlib: pip install 'streamer[bench]', or leave --plot away"
        ) from None
    del _matplotlib


def draw(report: Report, path: Path) -> None:
    """Rates of the cases, the budget over time and, where it was measured, the latency. Writes a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(found)
    found.suptitle(f"{report.model['name']} on {report.machine}, {report.date}")
    rates, budgets, batches, latency = found.subplots(2, 2).flat

    names = [figure.case for figure in report.figures]
    bars = rates.barh(names, [figure.texts_per_second for figure in report.figures])
    rates.bar_label(bars, fmt="{:,.0f}", padding=3)
    rates.invert_yaxis()
    rates.margins(x=0.2)
    rates.set_xlabel("texts/s")

    for figure in report.figures:
        if figure.budget is not None and len({tokens for _, tokens in figure.budgets}) > 1:
            times, tokens = zip(*figure.budgets, strict=True)
            budgets.step(times, tokens, where="post", label=figure.case)
    budgets.set_yscale("log", base=2)
    budgets.set(xlabel="seconds of the first turn", ylabel="budget, tokens")
    if budgets.lines:
        budgets.legend()

    timed = [(figure.case, figure.batch_ms) for figure in report.figures if figure.batch_ms is not None]
    batches.barh([case for case, _ in timed], [times.p99 for _, times in timed], label="p99", alpha=0.5)
    batches.barh([case for case, _ in timed], [times.p50 for _, times in timed], label="p50")
    batches.invert_yaxis()
    batches.set_xlabel("milliseconds a batch")
    if timed:
        batches.legend()

    for name in ("p50", "p95", "p99"):
        points = [(each.rate, getattr(each.ms, name)) for each in report.latencies]
        latency.plot([rate for rate, _ in points], [ms for _, ms in points], marker="o", label=name)
    latency.set(xlabel="texts/s from Kafka to Kafka", ylabel="latency, ms")
    if report.latencies:
        latency.legend()
    else:
        latency.text(0.5, 0.5, "not measured: --end-to-end", ha="center", transform=latency.transAxes)
    found.savefig(path, dpi=120, format="png")
