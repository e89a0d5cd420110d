"""`streamer bench` over a real Kafka and Redis, and over embedded ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from confluent_kafka.admin import AdminClient

from streamer.bench.report import Report
from streamer.cli import main
from tests.servers import KafkaServer

BATCH_MS, TEXT_US = 2.0, 100.0
BATCH = 64
CEILING = BATCH / (BATCH_MS / 1e3 + BATCH * TEXT_US / 1e6)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    random, path = Random(1), tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"{'word ' * random.randint(1, 30)}\n" for _ in range(300)))
    return path


def config(folder: Path, **sections: Mapping[str, object]) -> Path:
    path = folder / "streamer.yaml"
    values = {
        "model": {"backend": "fake"},
        "fake": {"base_ms": BATCH_MS, "per_text_us": TEXT_US},
        "batching": {"max_texts": BATCH},
        **sections,
    }
    path.write_bytes(msgspec.yaml.encode(values))
    return path


def arguments(texts: Path, config: Path, report: Path) -> list[str]:
    asked = ["bench", str(texts), "--config", str(config), "--json", str(report)]
    return [*asked, "--count", "10000", "--repeats", "1", "--rate", "200", "--seconds", "1"]


def check(report: Report) -> None:
    rates = {figure.case: figure.texts_per_second for figure in report.figures}
    assert set(rates) == {"streamer alone", "streamer, fixed 32", "Kafka to Kafka"}
    assert all(0 < rate < 1.05 * CEILING for rate in rates.values()), rates
    slow, loaded = report.latencies
    assert (slow.rate, slow.texts) == (200, 200)
    assert loaded.share == pytest.approx(0.8)
    for latency in report.latencies:
        assert BATCH_MS <= latency.ms.p50 <= latency.ms.p95 <= latency.ms.p99


def test_through_a_real_kafka_and_nothing_stays_behind(
    kafka: KafkaServer, redis_url: str, texts: Path, tmp_path: Path
) -> None:
    servers = {"kafka": {"bootstrap_servers": kafka.bootstrap_servers}, "redis": {"url": redis_url}}
    path = config(tmp_path, **servers)
    assert main([*arguments(texts, path, tmp_path / "report.json"), "--end-to-end"]) == 0
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report)
    check(report)
    assert report.broker == "a real broker"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    assert not [name for name in admin.list_topics(timeout=10).topics if name.startswith("streamer-bench")]
    groups = admin.list_consumer_groups().result().valid
    assert not [each.group_id for each in groups if each.group_id.startswith("streamer-bench")]


def test_an_embedded_broker_is_said_to_be_none(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path)
    assert main([*arguments(texts, path, tmp_path / "report.json"), "--embedded"]) == 0
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report)
    check(report)
    assert report.broker == "an embedded broker"
    said = capsys.readouterr().out
    assert "These are not figures of a real Kafka" in said
    assert "texts.csv holds 300 texts: they are repeated to make 10,000" in " ".join(said.split())


def test_without_a_broker_it_says_so_before_it_measures(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, kafka={"bootstrap_servers": "127.0.0.1:9"})
    assert main([*arguments(texts, path, tmp_path / "report.json"), "--end-to-end"]) == 3
    assert "no Kafka broker answers at 127.0.0.1:9" in capsys.readouterr().err


def test_a_file_without_texts_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert main(["bench", str(empty), "--config", str(config(tmp_path))]) == 2
    assert "empty.txt holds no texts" in capsys.readouterr().err
