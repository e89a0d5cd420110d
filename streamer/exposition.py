"""The figures in Prometheus' format, made when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from streamer.metrics import PREFIX, Description, DeviceFigures, Histogram, Metrics, Verdicts, described

Figures = Metrics | Verdicts | DeviceFigures


@dataclass(frozen=True, slots=True)
class Exporter:
    """A Prometheus collector. Each of `sources` gives figures, or None where there are none."""

    sources: Sequence[Callable[[], Figures | None]]
    clock: Callable[[], float]

    def collect(self) -> Iterator[Metric]:
        for source in self.sources:
            figures = source()
            if figures is None:
                continue
            for field, description in described(type(figures)):
                family = _family(description, getattr(figures, field), self.clock())
                if family is not None:
                    yield family


def registry(exporter: Exporter) -> CollectorRegistry:
    """What /metrics shows: the figures, and the memory, CPU time and start of the process."""
    found = CollectorRegistry()
    found.register(exporter)
    ProcessCollector(registry=found)
    return found


def _family(description: Description, value: Any, now: float) -> Metric | None:
    name, help, labels = PREFIX + description.name, description.help, description.labels
    if value is None:
        return None
    match description.kind:
        case "histogram":
            return _histogram(name, help, value)
        case "info":
            # An empty label is none at all, for Prometheus: so an empty mapping is no fact.
            facts = {label: value.get(label, "") for label in labels}
            return InfoMetricFamily(name.removesuffix("_info"), help, value=facts) if value else None
        case "age":
            return GaugeMetricFamily(name, help, value=max(0.0, now - value)) if value else None
    make = CounterMetricFamily if description.kind == "counter" else GaugeMetricFamily
    if not labels:
        return make(name, help, value=float(value))
    family = make(name, help, labels=labels)
    for key, number in (dict.fromkeys(description.known, 0) | _copy(value)).items():
        family.add_metric([key] if isinstance(key, str) else list(map(str, key)), number)
    return family


def _copy(values: Mapping[Any, float]) -> dict[Any, float]:
    # One call in C, under the interpreter's lock: the engine cannot add a key meanwhile.
    return dict(values)


def _histogram(name: str, help: str, histogram: Histogram) -> Metric:
    counts = histogram.counts.copy()
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return HistogramMetricFamily(
        name, help, buckets=list(zip(bounds, accumulate(counts), strict=True)), sum_value=histogram.sum
    )
