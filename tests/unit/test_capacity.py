"""`streamer plan`: from measured figures to workers, and nothing from figures that nobody has measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from streamer.bench import capacity
from streamer.bench.capacity import LOAD, Row
from streamer.cli import main
from streamer.errors import UsageError
from tests.unit.test_bench import example

ROW = Row(
    device="cpu",
    model="m",
    precision="bf16",
    machine="2 cores",
    date="2026-11-21",
    command="streamer bench",
    tokens=50.0,
    texts_per_second=1000.0,
    tokens_per_second=50_000.0,
    budget=2048,
    latency_ms={"p50": 20.0, "p99": 90.0},
    latency_share=0.8,
)


def test_workers_are_enough_and_not_one_too_many() -> None:
    for rate in (1, 799, 801, 5000, 123_456):
        found = capacity.plan(ROW, rate, 50)
        assert found.workers * 1000 * LOAD >= rate > (found.workers - 1) * 1000 * LOAD
        assert found.share <= LOAD and found.partitions >= found.workers


def test_longer_texts_cost_more_and_shorter_ones_are_not_trusted_to_cost_less() -> None:
    assert capacity.plan(ROW, 800, 100).texts_per_second == 500
    assert capacity.plan(ROW, 800, 10).texts_per_second == 1000, "the line's cost is by text"


def test_what_ships_was_measured() -> None:
    known = capacity.rows()
    assert known and len({(row.device, row.model) for row in known}) == len(known)
    for row in known:
        assert "bench" in row.command and row.machine and row.date >= "2026-11-21"
        assert row.tokens_per_second == pytest.approx(row.texts_per_second * row.tokens, rel=0.01)
        assert row.latency_ms["p50"] <= row.latency_ms["p95"] <= row.latency_ms["p99"]


def test_an_unknown_device_is_an_error_that_says_what_is_known_and_how_to_measure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--rate", "5000", "--tokens", "60", "--device", "abacus"]) == 2
    said = capsys.readouterr().err
    assert "nobody has measured sentiment on abacus" in said and "cpu with sentiment" in said
    assert "streamer bench TEXTS --config FILE --end-to-end --json" in said


def test_the_plan_says_what_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--rate", "5000", "--tokens", "60", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    (row,) = [row for row in capacity.rows() if (row.device, row.model) == ("cpu", "sentiment")]
    assert f"workers     {capacity.plan(row, 5000, 60).workers}," in said
    assert row.machine in said and row.date in said


def test_rate_and_tokens_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--rate", "5000"]) == 2
    assert "--rate and --tokens are needed" in capsys.readouterr().err


def test_a_report_becomes_a_row_and_replaces_an_older_one(tmp_path: Path) -> None:
    report, file, figures = example(), tmp_path / "report.json", tmp_path / "figures.json"
    line = msgspec.structs.replace(report.figures[0], case="Kafka to Kafka", texts_per_second=900.0)
    report.figures.append(line)
    for rate in (900.0, 950.0):
        line.texts_per_second = rate
        file.write_bytes(msgspec.json.encode(report))
        assert main(["plan", "--add", str(file), "--device", "new", "--figures", str(figures)]) == 0
    (row,) = capacity.rows(figures)
    assert (row.device, row.model, row.texts_per_second) == ("new", "fake", 950.0)
    assert row.tokens_per_second == 950 * report.tokens
    plan = ["plan", "--rate", "10", "--tokens", "5", "--device", "new", "--model", "fake"]
    assert main([*plan, "--figures", str(figures)]) == 0


@pytest.mark.parametrize("broker", ["", "an embedded broker"])
def test_a_report_without_a_real_kafka_is_no_row(broker: str) -> None:
    report = example()
    report.figures.append(msgspec.structs.replace(report.figures[0], case="Kafka to Kafka"))
    report.broker = broker
    with pytest.raises(UsageError, match="no run through a real Kafka"):
        capacity.row(report, "cpu")


@pytest.mark.parametrize("content", ["not JSON", "{}", '[{"device": "cpu"}]'])
def test_a_file_that_holds_no_figures_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"figures\.json holds no figures"):
        capacity.rows(file)
    with pytest.raises(UsageError, match="No such file"):
        capacity.rows(tmp_path / "missing.json")
