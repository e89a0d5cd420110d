"""The HTTP endpoints, asked over HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from streamer.errors import StartupError
from streamer.metrics import Metrics
from streamer.ops import STALE_STEP, OpsServer
from streamer.records import TopicPartition


class Worker:
    """What the endpoints see of an engine, and a clock."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.now = 1000.0
        self.server = OpsServer(self.metrics, "127.0.0.1", 0, clock=lambda: self.now)

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.server.close()


def test_metrics_are_what_the_engine_counts_now(worker: Worker) -> None:
    worker.metrics.results = 41
    worker.metrics.dead["invalid_json"] = 2
    assert 'streamer_dead_total{reason="invalid_json"} 2.0' in worker.get("/metrics")[1]
    worker.metrics.results += 1
    assert "streamer_results_total 42.0" in worker.get("/metrics")[1]


def test_an_unknown_lag_is_absent_and_a_known_one_may_be_zero(worker: Worker) -> None:
    worker.metrics.lag = {TopicPartition("texts.in", 1): 0}
    body = worker.get("/metrics")[1]
    assert 'streamer_lag_records{partition="1",topic="texts.in"} 0.0' in body
    assert 'partition="0"' not in body


def test_an_engine_that_steps_is_healthy_and_one_that_hangs_is_not(worker: Worker) -> None:
    worker.metrics.polled_at = worker.now - 1
    assert worker.get("/healthz")[0] == 200
    worker.now += STALE_STEP
    status, body = worker.get("/healthz")
    assert status == 503
    assert json.loads(body) == {"ok": False, "step_age_s": STALE_STEP + 1, "limit_s": STALE_STEP}


def test_ready_means_that_partitions_are_assigned(worker: Worker) -> None:
    assert worker.get("/readyz")[0] == 503
    worker.metrics.assigned = 2
    assert worker.get("/readyz")[0] == 200


def test_an_unknown_path_names_the_known_ones(worker: Worker) -> None:
    status, body = worker.get("/metric")
    assert status == 404
    assert "/metrics" in body


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port} .*set ops\.port"):
            OpsServer(Metrics(), "127.0.0.1", port)
