"""A panel is a title, a unit and its queries; where it stands on a dashboard follows from the order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8  # of Grafana's grid, and of a graph on it

JOB = 'job=~"$job"'
WORKER = 'job=~"$job", instance=~"$instance"'
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    """`queries` maps PromQL to its legend. `kind` is Grafana's; a stat is a number, small."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""
    stacked: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the grid."""
        return (4, 4) if self.kind == "stat" else (12, HEIGHT)


@dataclass(frozen=True)
class Row:
    title: str
    panels: list[Panel]


def quantiles(name: str, by: str = "") -> dict[str, str]:
    """The median and the 99th percentile of a histogram."""
    where = WORKER if by else JOB
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    buckets = f"sum by ({labels}) (rate({name}_bucket{{{where}}}[{RATE}]))"
    return {f"histogram_quantile({q}, {buckets})": f"p{int(q * 100)}{legend}" for q in (0.5, 0.99)}


def rate(name: str, by: str, where: str = JOB) -> str:
    return f"sum by ({by}) (rate({name}{{{where}}}[{RATE}]))"


def gauge(name: str, by: str = "instance", where: str = WORKER) -> dict[str, str]:
    return {f"sum by ({by}) ({name}{{{where}}})": f"{{{{{by}}}}}"}


def stat(title: str, query: str, unit: str = "short") -> Panel:
    return Panel(title, {query: ""}, unit, kind="stat")


def variables(*, workers: bool) -> list[dict[str, Any]]:
    """What is chosen at the top: where the figures are, which job, and which workers."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    job = _variable("job", "label_values(streamer_healthy, job)")
    instance = _variable("instance", 'label_values(streamer_healthy{job=~"$job"}, instance)')
    return [source, job, instance] if workers else [source, job]


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes: workers come and go
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def laid_out(rows: list[Row]) -> list[dict[str, Any]]:
    """The panels as Grafana has them, row by row, from left to right."""
    panels: list[dict[str, Any]] = []

    def place(panel: dict[str, Any], **position: int) -> None:
        panels.append({"id": len(panels) + 1, **panel, "gridPos": position})

    top = 0
    for row in rows:
        place({"type": "row", "title": row.title, "collapsed": False}, x=0, y=top, w=WIDTH, h=1)
        left, top, height = 0, top + 1, 0
        for panel in row.panels:
            width, height = panel.size
            if left + width > WIDTH:
                left, top = 0, top + height
            place(_shown(panel), x=left, y=top, w=width, h=height)
            left += width
        top += height
    return panels


def _shown(panel: Panel) -> dict[str, Any]:
    now = panel.kind in ("stat", "table", "bargauge")
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend,
            "instant": now,
            "range": not now,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for number, (query, legend) in enumerate(panel.queries.items())
    ]
    custom = {"fillOpacity": 10, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 10}
    return {
        "type": panel.kind,
        "title": panel.title,
        **({"description": panel.about} if panel.about else {}),
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({} if now else {"custom": custom})},
            "overrides": [],
        },
        "targets": targets,
    }
