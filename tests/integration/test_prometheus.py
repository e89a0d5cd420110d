"""Two workers on one machine under load, seen by a real Prometheus that draws, records and alerts."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import pytest

from monitoring import dashboards
from tests.conftest import MakeTopic
from tests.integration.line import Line, review, wait_until
from tests.servers import KafkaServer, RedisServer
from tests.servers.process import ServerProcess, free_port

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
# What these workers have nothing to say of: it takes a device of NVIDIA, or a model that is no stand-in.
WITHOUT_DEVICE = {"Model FLOPs utilisation", "Device utilisation", "Device memory", "Power", "Temperature"}
WITHOUT_MODEL = {"Padded for want of a packed attention", "Failed batches"}
SHORTER = {
    r"offset 1h": "offset 4s",
    r"\[(5|10|15)m\]": "[4s]",
    r"for: \d+m": "for: 200ms",
    r"lag_records:sum > 1000": "lag_records:sum > 10",
}


class Prometheus:
    """Debian's, over a copy of our rules in which minutes are seconds."""

    def __init__(self, folder: Path, targets: Path) -> None:
        if shutil.which("prometheus") is None:
            pytest.fail("prometheus is not on PATH: apt-get install prometheus")
        (folder / "rules").mkdir(parents=True)
        for path in (ROOT / "monitoring/prometheus/rules").glob("*.yml"):
            text = path.read_text("utf-8")
            for long, short in SHORTER.items():
                text = re.sub(long, short, text)
            (folder / "rules" / path.name).write_text(text, "utf-8")
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
            "rule_files": ["rules/*.yml"],
            "scrape_configs": [
                {
                    "job_name": "streamer",
                    "file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}],
                }
            ],
        }
        (folder / "prometheus.yml").write_bytes(msgspec.yaml.encode(config))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
        ]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        self.process = ServerProcess("Prometheus", command, folder / "log")
        self.process.start(self._answers, timeout=30)

    def ask(self, query: str) -> list[dict[str, Any]]:
        with urlopen(f"{self._url}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def fired(self) -> set[str]:
        """The alerts that have fired since it was started."""
        query = 'max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[10m]))'
        return {alert["metric"]["alertname"] for alert in self.ask(query)}

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def queries() -> Iterator[tuple[str, str]]:
    """Title and query of each panel, as Grafana would ask, with its variables filled in."""
    for name in dashboards.DASHBOARDS:
        for panel in dashboards.dashboard(name)["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "4s")
                yield panel["title"], query.replace("$job", "streamer").replace("$instance", ".+")


def send(line: Line, dice: random.Random, start: int, count: int) -> None:
    """Mostly good records; some broken, some empty, and some that come twice."""
    for number in range(start, start + count):
        partition = number % PARTITIONS
        good = msgspec.json.encode({"id": f"review-{number}", "text": review(dice)})
        line.publish(dice.choice([good] * 17 + [b"no JSON", None]), partition)
        if number % 20 == 0:
            line.publish(good, partition)
    line.flush()


def test_a_prometheus_sees_two_workers_draws_all_panels_and_alerts(
    breakable_kafka: KafkaServer, breakable_redis: RedisServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    line = Line(tmp_path, breakable_kafka, breakable_redis.url, make_topic, PARTITIONS)
    line.config["kafka"]["consumer"]["statistics.interval.ms"] = "500"
    line.config["ops"] = {"port": 0, "targets": str(tmp_path / "targets")}
    line.config["limits"] = {"dead_letter_share": None, "dead_letters_in_a_row": None}
    line.config["fake"] = {"base_ms": 20.0}
    dice = random.Random(7)
    empty: set[str] = set()
    prometheus = Prometheus(tmp_path / "prometheus", tmp_path / "targets")
    try:
        send(line, dice, 0, 400)
        first = line.start()
        line.config["delivery"] = "exactly_once"
        second = line.start()
        wait_until(
            lambda: first.well and second.well and len(prometheus.ask("streamer_ready == 1")) == 2,
            "two workers that are ready, of which Prometheus knows",
        )
        assert len({one["metric"]["instance"] for one in prometheus.ask("streamer_healthy")}) == 2
        sent = 400

        def more(seen: bool) -> bool:
            nonlocal sent
            if not seen:
                send(line, dice, sent, 40)
                sent += 40
            return seen

        wait_until(lambda: more("StreamerDeadLetters" in prometheus.fired()), "dead letters by the dozen")
        breakable_redis.kill()
        send(line, dice, sent, 4000)
        away = {"StreamerRedisAway", "StreamerNoProgress"}
        wait_until(lambda: prometheus.fired() >= away, "the alerts of a Redis that is away")
        breakable_redis.restart()
        sent += 4000
        breakable_kafka.kill()
        wait_until(lambda: "StreamerKafkaAway" in prometheus.fired(), "the alert of a broker that is away")
        breakable_kafka.restart()

        def drawn() -> bool:
            nonlocal empty
            empty = {title for title, query in queries() if not prometheus.ask(query)}
            return empty == WITHOUT_DEVICE | WITHOUT_MODEL

        wait_until(lambda: more(drawn()), "every panel that can have data")
        second.process.kill()
        wait_until(lambda: "StreamerDown" in prometheus.fired(), "the alert of a worker that was killed")
        assert "StreamerUnhealthy" not in prometheus.fired(), "nothing hung"
    finally:
        print(
            "fired:",
            prometheus.fired(),
            "\nempty:",
            empty,
            "\nlog:",
            *[w.log.read_text()[-1500:] for w in line.workers],
        )
        line.close()
        prometheus.process.kill()
