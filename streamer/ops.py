"""The HTTP endpoints: /metrics for Prometheus, /healthz and /readyz for whoever restarts and routes.

They run in a thread of their own and only read what the engine publishes in its metrics.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from streamer.errors import StartupError
from streamer.metrics import Metrics

log = logging.getLogger(__name__)

# A step takes milliseconds, and a drain on revoke seconds: an engine that is silent for this long hangs.
STALE_STEP = 60.0

COUNTERS: dict[str, str] = {
    "records": "Records read.",
    "results": "Results written to the results topic.",
    "delayed": "Records written to a retry topic.",
    "batches": "Batches inferred.",
    "failed_batches": "Batches that failed as a whole.",
    "texts": "Texts inferred.",
    "tokens": "Tokens inferred, without padding.",
    "padded_tokens": "Tokens computed on, padding included.",
    "device_seconds": "Seconds spent in inference.",
    "rebalances": "Times that partitions were assigned.",
}
GAUGES: dict[str, str] = {
    "budget_tokens": "Tokens a batch may hold, padding included.",
    "assigned": "Partitions assigned to this worker.",
    "in_flight_bytes": "Bytes of records read and not yet written.",
    "paused": "1 while reading is paused because the bound on bytes in flight is reached.",
}
LABELLED: dict[str, tuple[str, str]] = {
    "dead": ("reason", "Dead letters written."),
    "skipped": ("reason", "Records that needed no result."),
    "retries": ("stage", "Times that something outside was away and is waited for."),
}


class Exporter:
    """A Prometheus collector over the engine's numbers: read when scraped, free otherwise."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        for name, help in COUNTERS.items():
            yield CounterMetricFamily(f"streamer_{name}", help, value=getattr(metrics, name))
        for name, (label, help) in LABELLED.items():
            family = CounterMetricFamily(f"streamer_{name}", help, labels=[label])
            for value, count in list(getattr(metrics, name).items()):
                family.add_metric([value], count)
            yield family
        for name, help in GAUGES.items():
            yield GaugeMetricFamily(f"streamer_{name}", help, value=float(getattr(metrics, name)))
        lag = GaugeMetricFamily(
            "streamer_lag_records",
            "Records behind the end of a partition; absent while unknown.",
            labels=["topic", "partition"],
        )
        for (topic, partition), records in list(metrics.lag.items()):
            lag.add_metric([topic, str(partition)], records)
        yield lag


class OpsServer:
    """Serves the endpoints until `close`. Raises StartupError when the port is taken."""

    def __init__(
        self, metrics: Metrics, host: str, port: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        registry = CollectorRegistry()
        registry.register(Exporter(metrics))
        routes: Mapping[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _health(metrics, clock()),
            "/readyz": lambda: _readiness(metrics),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                route = routes.get(self.path.partition("?")[0])
                code, kind, body = route() if route else (404, "text/plain", "\n".join(routes).encode())
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise StartupError(
                f"ops cannot listen on {host}:{port} ({error.strerror}): set ops.port"
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="ops", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _health(metrics: Metrics, now: float) -> tuple[int, str, bytes]:
    age = now - metrics.polled_at
    return _answer(age <= STALE_STEP, {"step_age_s": round(age, 3), "limit_s": STALE_STEP})


def _readiness(metrics: Metrics) -> tuple[int, str, bytes]:
    return _answer(metrics.assigned > 0, {"assigned_partitions": metrics.assigned, "paused": metrics.paused})


def _answer(good: bool, facts: dict[str, object]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", msgspec.json.encode({"ok": good, **facts})
