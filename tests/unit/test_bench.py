"""What `streamer bench` makes of its turns: every text counts, medians, and the arithmetic behind the MFU."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from streamer.backends.fake import FakeBackend
from streamer.bench import plot, report
from streamer.bench.alone import FIXED, Alone
from streamer.bench.arithmetic import known_peak, measured_peak, operations
from streamer.bench.report import Latency, Percentiles, Report
from streamer.bench.turns import Case, Incomplete, Turn, take_turns
from streamer.errors import StartupError
from streamer.sizing import START, TokenBudget

TEXTS = [("x" * (10 + number % 190)) for number in range(1500)]


def alone(**times: float) -> Alone:
    backend = FakeBackend(**times)

    def budget() -> TokenBudget:
        return TokenBudget(max_texts=64, max_tokens=16_384, max_latency=1.0, adaptive=True, cost=backend.cost)

    return Alone(backend, budget, window=512)


def test_cases_take_turns_after_an_untimed_one() -> None:
    seen: list[tuple[str, int]] = []

    def case(name: str) -> Case:
        def run(texts: Sequence[str]) -> Turn:
            seen.append((name, len(texts)))
            return Turn([""] * len(texts))

        return run

    turns = take_turns({"a": case("a"), "b": case("b")}, TEXTS, 2, warming={"b": case("c")})
    first = [("a", 187), ("c", 187)]
    assert seen == first + [("a", 1500), ("b", 1500)] * 2
    assert {name: len(taken) for name, taken in turns.items()} == {"a": 2, "b": 2}
    assert all(turn.seconds > 0 for taken in turns.values() for turn in taken)


def test_a_case_may_have_a_clock_of_its_own() -> None:
    turns = take_turns({"line": lambda texts: Turn(["x"], seconds=7.0)}, ["a"], 1)
    assert turns["line"][0].seconds == 7.0


@pytest.mark.parametrize("labels", [99, 101])
def test_a_case_that_loses_or_invents_a_text_has_no_figure(labels: int) -> None:
    with pytest.raises(Incomplete, match=f"'case' gave {labels} labels for 64 texts"):
        take_turns({"case": lambda texts: Turn(["x"] * labels)}, ["text"] * 100, 1)


def test_alone_every_text_gets_its_own_label_in_its_own_place() -> None:
    case, backend = alone(), FakeBackend()
    turn = case(TEXTS)
    assert turn.labels == ["positive" if len(text) % 2 else "negative" for text in TEXTS]
    lengths = [found.tokens for found in backend.encode(TEXTS) if not isinstance(found, Exception)]
    assert turn.tokens == turn.computed == sum(lengths)
    assert turn.squares == sum(length**2 for length in lengths)
    assert len(turn.services) == len(turn.budgets) > len(TEXTS) / 64
    assert [when for when, _ in turn.budgets] == sorted(when for when, _ in turn.budgets)


def test_a_second_turn_goes_on_with_the_budget() -> None:
    case = alone(base_ms=1.0, per_token_us=0.1)
    case(TEXTS)
    first = case.budget
    case(TEXTS)
    assert case.budget is first and first.tokens > START


def test_fixed_batches_hold_32_texts_as_they_come() -> None:
    turn = alone().fixed(TEXTS)
    windows = [512, 512, 476]
    assert len(turn.services) == sum(-(-window // FIXED) for window in windows)
    assert len(turn.labels) == len(TEXTS)


def test_operations_are_those_of_the_papers_models(tmp_path: Path) -> None:
    config = {
        "model_type": "bert",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert operations(tmp_path, 1, 0) == pytest.approx(169.9e6, rel=0.001)
    assert operations(tmp_path, 0, 100**2) == 36_864 * 100**2
    distil = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "hidden_dim": 3072}
    (tmp_path / "config.json").write_text(json.dumps(distil))
    assert operations(tmp_path, 1, 1) == pytest.approx(84.9e6 + 18_432, rel=0.001)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "modernbert"}))
    assert operations(tmp_path, 1, 1) is None


def test_peaks_are_known_or_measured() -> None:
    assert known_peak("cuda:0 (NVIDIA H200)") == 989e12
    assert known_peak("cpu") is None
    assert 1e9 < measured_peak("cpu", "fp32") < 1e15


def test_a_figure_is_the_median_of_its_turns() -> None:
    turns = [
        Turn(["a"] * 100, tokens=1000, computed=1500, services=[0.01, 0.03], seconds=seconds)
        for seconds in (9.0, 2.0, 1.0)
    ]
    found = report.figure("case", turns, None, 1.0)
    assert (found.texts_per_second, found.tokens_per_second, found.padding) == (50.0, 500.0, 1.5)
    assert found.seconds == [9.0, 2.0, 1.0] and found.mfu is None
    assert found.batch_ms is not None and found.batch_ms.p50 == 20.0


def example() -> Report:
    turns = [alone(base_ms=0.5)(TEXTS) for _ in range(2)]
    for turn in turns:
        turn.seconds = 1.0
    return Report(
        date="2026-11-21",
        machine="2 cores",
        command="streamer bench",
        streamer="1",
        model={"name": "fake"},
        texts=len(TEXTS),
        tokens=50.0,
        characters=100.0,
        peak=1e12,
        peak_from="given",
        figures=[report.figure("streamer alone", turns, None, 1e12)],
        broker="a real broker",
        latencies=[Latency(50.0, 100, Percentiles(1.0, 2.0, 3.0), 0.5)],
    )


def test_a_report_survives_json() -> None:
    there = example()
    assert msgspec.json.decode(msgspec.json.encode(there), type=Report) == there


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot.require()
    there = example()
    for latencies in (there.latencies, []):
        there.latencies = latencies
        plot.draw(there, tmp_path / "bench.png")
        assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StartupError, match=r"pip install 'streamer\[bench\]'"):
        plot.require()
