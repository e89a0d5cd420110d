"""The accuracy gate: what it measures, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamer.backends.torch import TorchBackend
from streamer.backends.torch.gate import Answers, DriftError, measure_drift, read_sample
from streamer.backends.torch.long_texts import LongTexts
from streamer.errors import ConfigurationError, RecordError
from streamer.records import Classification
from tests.tiny_models import save_bert


def answer(good: float) -> Classification:
    scores = {"good": good, "bad": 1 - good}
    return Classification(max(scores, key=lambda name: scores[name]), max(good, 1 - good), scores)


NOTHING = RecordError("not_a_number")


@pytest.mark.parametrize(
    ("found", "expected", "labels", "scores"),
    [
        ([answer(0.9), answer(0.2)], [answer(0.9), answer(0.2)], 0.0, 0.0),
        ([answer(0.8), answer(0.2)], [answer(0.9), answer(0.2)], 0.0, 0.05),
        ([answer(0.6), answer(0.2)], [answer(0.4), answer(0.2)], 0.5, 0.1),
        ([NOTHING, answer(0.2)], [answer(0.4), answer(0.2)], 0.5, 0.5),
        ([NOTHING, answer(0.2)], [NOTHING, answer(0.2)], 0.0, 0.0),
    ],
    ids=["the same", "a score", "a label", "no number", "no number before either"],
)
def test_it_measures_labels_and_scores(
    found: Answers, expected: Answers, labels: float, scores: float
) -> None:
    drift = measure_drift(found, expected)
    assert drift.labels == pytest.approx(labels)
    assert drift.scores == pytest.approx(scores)


@pytest.mark.parametrize("setting", [{"precision": "bf16"}, {"precision": "fp32", "quantize": "int8"}])
def test_what_was_asked_for_and_changes_too_much_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    save_bert(tmp_path)
    with pytest.raises(DriftError, match=r"changes .* of 48 texts; model.max_drift allows 0: set") as caught:
        TorchBackend.load(str(tmp_path), device="cpu", max_drift=0.0, **setting)
    assert all(f"{key}: {value}" in str(caught.value).replace("model.", "") for key, value in setting.items())
    assert caught.value.exit_code == 3


def test_fp32_has_nothing_to_pass(tmp_path: Path) -> None:
    TorchBackend.load(str(save_bert(tmp_path)), device="cpu", precision="fp32", max_drift=0.0)


def test_auto_takes_fp32_where_bf16_changes_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    backend = TorchBackend.load(str(save_bert(tmp_path)), device="cpu", max_drift=0.0)
    assert backend.describe()["precision"] == "fp32"
    (logged,) = [record.getMessage() for record in caplog.records]
    assert logged.startswith("precision auto takes fp32, not bf16: model.precision: bf16")


def test_a_sample_of_ones_own_texts(tmp_path: Path) -> None:
    sample = tmp_path / "mine.txt"
    sample.write_text("很好\n\n  bad \n", "utf-8")
    assert read_sample(str(sample)) == ["很好", "bad"]
    with pytest.raises(DriftError, match=r"of 2 texts"):
        TorchBackend.load(
            str(save_bert(tmp_path)), device="cpu", precision="bf16", sample=str(sample), max_drift=0.0
        )


def test_a_sample_of_which_the_model_takes_no_text_is_named(tmp_path: Path) -> None:
    sample = tmp_path / "long.txt"
    sample.write_text("very good " * 500, "utf-8")
    with pytest.raises(ConfigurationError, match=r"model\.sample has no text that the model takes"):
        TorchBackend.load(
            str(save_bert(tmp_path)),
            device="cpu",
            precision="bf16",
            sample=str(sample),
            long_texts=LongTexts("dead_letter"),
        )


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, r"cannot be read: .*No such file"), (b"\xff\xfe", r"cannot be read"), (b"\n \n", r"no text")],
    ids=["missing", "not UTF-8", "empty"],
)
def test_a_sample_that_is_none_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "sample.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_sample(str(path))
    assert str(path) in str(caught.value)


def test_the_shipped_sample_holds_both_languages_and_all_lengths() -> None:
    texts = read_sample(None)
    assert len(texts) == len(set(texts)) == 48
    assert sum(text.isascii() for text in texts) in range(16, 33)
    assert min(map(len, texts)) < 5 and max(map(len, texts)) > 300
