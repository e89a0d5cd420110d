"""The HTTP endpoints, asked over HTTP."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamer.errors import StartupError
from streamer.health import STALE_STEP
from streamer.metrics import DeviceFigures, Metrics
from streamer.ops import OpsServer
from streamer.records import TopicPartition

HANG = 300.0


class Worker:
    """What the endpoints see of an engine that runs, and a clock."""

    def __init__(self) -> None:
        self.metrics = Metrics(stage="running", polled_at=1000.0)
        self.device: DeviceFigures | None = None
        self.now = 1000.0
        self.server = OpsServer(
            self.metrics, "127.0.0.1", 0, hang=HANG, device=lambda: self.device, clock=lambda: self.now
        )

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def says(self, path: str) -> tuple[int, dict[str, tuple[bool, str]]]:
        """The status and what each check says."""
        status, body = self.get(path)
        answer: dict[str, Any] = json.loads(body)
        assert answer["ok"] == (status == 200)
        return status, {name: (check["ok"], check["says"]) for name, check in answer["checks"].items()}

    def figures(self) -> dict[str, float]:
        """The samples without labels, and those with them as name{a,b}, by the labels' names."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            sample.name + (f"{{{','.join(sample.labels.values())}}}" if sample.labels else ""): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.server.close()


class TestMetrics:
    def test_they_are_what_the_engine_counts_now(self, worker: Worker) -> None:
        worker.metrics.results = 41
        worker.metrics.dead["invalid_json"] = 2
        worker.metrics.kafka_errors["consumer", "_TRANSPORT"] += 1
        found = worker.figures()
        assert found["streamer_dead_letters_total{invalid_json}"] == 2
        assert found["streamer_kafka_errors_total{consumer,_TRANSPORT}"] == 1
        worker.metrics.results += 1
        assert worker.figures()["streamer_results_total"] == 42

    def test_an_unknown_lag_is_absent_and_a_known_one_may_be_zero(self, worker: Worker) -> None:
        worker.metrics.lag = {TopicPartition("texts.in", 1): 0}
        worker.metrics.lag_unknown = 1
        found = worker.figures()
        assert found["streamer_lag_records{1,texts.in}"] == 0
        assert "streamer_lag_records{0,texts.in}" not in found
        assert found["streamer_lag_unknown_partitions"] == 1

    def test_what_is_not_known_is_absent(self, worker: Worker) -> None:
        before = worker.figures()
        worker.metrics.flops, worker.metrics.redis_up = 1e9, False
        new = worker.figures().keys() - before.keys()
        assert new == {"streamer_model_flops_total", "streamer_redis_up"}

    def test_labels_that_are_known_start_at_zero(self, worker: Worker) -> None:
        """Else the first of its kind would be no increase for Prometheus."""
        found = worker.figures()
        assert found["streamer_skipped_total{duplicate}"] == 0
        assert found["streamer_transactions_total{aborted}"] == 0

    def test_a_histogram_counts_what_is_at_most_its_bound(self, worker: Worker) -> None:
        for texts in (1, 2, 64, 65, 1_000_000):
            worker.metrics.batch_texts.observe(texts)
        found = worker.figures()
        buckets = [found[f"streamer_batch_texts_bucket{{{le}}}"] for le in ("1.0", "2.0", "64.0", "+Inf")]
        assert buckets == [1, 2, 3, 5]
        assert found["streamer_batch_texts_count"] == 5
        assert found["streamer_batch_texts_sum"] == 1_000_132

    def test_an_age_is_counted_to_the_scrape(self, worker: Worker) -> None:
        assert worker.figures()["streamer_oldest_unfinished_seconds"] == 0, "there is none"
        worker.metrics.oldest_at = worker.now - 3
        worker.now += 1
        found = worker.figures()
        assert found["streamer_oldest_unfinished_seconds"] == 4
        assert found["streamer_step_age_seconds"] == 1
        assert "streamer_last_batch_age_seconds" not in found, "no batch yet"

    def test_the_model_is_a_fact_and_the_process_has_a_start(self, worker: Worker) -> None:
        assert not [name for name in worker.figures() if name.startswith("streamer_model_info")]
        worker.metrics.model = {"name": "sentiment", "revision": "1"}
        found = worker.figures()
        assert found["streamer_model_info{,,sentiment,,,,1}"] == 1
        assert found["process_start_time_seconds"] > 0

    def test_the_probes_are_figures_too(self, worker: Worker) -> None:
        found = worker.figures()
        assert (found["streamer_healthy"], found["streamer_ready"]) == (1, 0)

    def test_a_device_is_shown_where_there_is_one(self, worker: Worker) -> None:
        assert not [name for name in worker.figures() if name.startswith("streamer_device_memory")]
        worker.device = DeviceFigures(0.5, 10, 100, 300.0, 60.0)
        assert worker.figures()["streamer_device_utilisation_ratio"] == 0.5


class TestHealth:
    def test_an_engine_that_steps_is_healthy_and_one_that_hangs_is_not(self, worker: Worker) -> None:
        assert worker.get("/healthz")[0] == 200
        worker.now += STALE_STEP + 1
        status, checks = worker.says("/healthz")
        assert status == 503
        assert checks["engine"] == (False, "last step 61.0 s ago; at most 60")
        assert checks["device"] == (True, "no batch yet; has no work")

    def test_a_device_that_gives_nothing_back_is_not_healthy_however_the_engine_steps(
        self, worker: Worker
    ) -> None:
        worker.metrics.batch_at = worker.metrics.device_busy_since = worker.now
        worker.now = worker.metrics.polled_at = worker.now + HANG + 1
        status, checks = worker.says("/healthz")
        assert status == 503
        says = "last batch 301.0 s ago; has had work for 301.0 s since; at most 300"
        assert checks["device"] == (False, says)
        worker.metrics.device_busy_since = math.inf
        assert worker.get("/healthz")[0] == 200, "it has nothing to do: that is no fault"

    def test_a_start_that_takes_its_time_is_healthy(self, worker: Worker) -> None:
        worker.metrics.stage = "loading the model"
        worker.now += 600
        assert worker.says("/healthz") == (200, {"engine": (True, "not started yet: loading the model")})
        assert worker.says("/startupz") == (503, {"start": (False, "loading the model")})
        worker.metrics.stage = "running"
        assert worker.says("/startupz") == (200, {"start": (True, "running")})


class TestReadiness:
    @pytest.fixture(autouse=True)
    def ready(self, worker: Worker) -> None:
        metrics = worker.metrics
        metrics.model, metrics.assigned, metrics.member = {"name": "sentiment"}, 2, True
        metrics.brokers_up, metrics.redis_up = 3, True

    def test_it_says_what_it_has(self, worker: Worker) -> None:
        assert worker.says("/readyz") == (
            200,
            {
                "work": (True, "infers with sentiment"),
                "assignment": (True, "2 partitions"),
                "broker": (True, "connected to 3"),
                "redis": (True, "answered when last asked"),
            },
        )

    @pytest.mark.parametrize(
        ("change", "check", "says"),
        [
            ({"model": {}, "stage": "loading the model"}, "work", "loading the model"),
            ({"stage": "draining"}, "work", "draining: takes no more records"),
            ({"assigned": 0, "member": False}, "assignment", "not a member of its group"),
            ({"brokers_up": 0}, "broker", "no connection"),
            ({"brokers_up": None, "assigned": 0, "member": False}, "broker", "nothing heard yet"),
            ({"redis_up": False}, "redis", "does not answer"),
        ],
    )
    def test_it_says_what_is_missing(
        self, worker: Worker, change: dict[str, Any], check: str, says: str
    ) -> None:
        for name, value in change.items():
            setattr(worker.metrics, name, value)
        status, checks = worker.says("/readyz")
        assert status == 503
        assert checks[check] == (False, says)

    @pytest.mark.parametrize(
        ("change", "check", "says"),
        [
            ({"model": {}}, "work", "running"),  # `streamer retry`
            ({"assigned": 0}, "assignment", "a spare: the group has no partition for it"),
            ({"paused": True}, "assignment", "2 partitions; reading is paused"),
            ({"brokers_up": None}, "broker", "it gave an assignment"),
            ({"redis_up": None}, "redis", "not in use"),
        ],
    )
    def test_what_is_no_reason_to_say_no(
        self, worker: Worker, change: dict[str, Any], check: str, says: str
    ) -> None:
        for name, value in change.items():
            setattr(worker.metrics, name, value)
        status, checks = worker.says("/readyz")
        assert (status, checks[check]) == (200, (True, says))


def test_an_unknown_path_names_the_known_ones(worker: Worker) -> None:
    status, body = worker.get("/metric")
    assert status == 404
    assert body.split() == ["/metrics", "/healthz", "/readyz", "/startupz"]


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port} .*set ops\.host and ops\.port"):
            OpsServer(Metrics(), "127.0.0.1", port)
