"""What becomes of texts that are longer than the model takes: cut, refused, or scored in windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from streamer.backends.torch import TorchBackend
from streamer.backends.torch.long_texts import LongTexts, Windows
from streamer.errors import ConfigurationError, RecordError
from streamer.records import Classification, Encoding, Job
from tests.tiny_models import TEXTS, classify, edit, encode, jobs_of, save_bert, save_family, save_roberta

LENGTH = 20  # with [CLS] and [SEP]
LONG = "这家酒店的房间很干净，服务也很好，the film was not good at all , 物流太慢了 " * 2


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


def load(folder: Path, **long_texts: Any) -> TorchBackend:
    return TorchBackend.load(
        str(folder), device="cpu", precision="fp32", max_length=LENGTH, long_texts=LongTexts(**long_texts)
    )


def overflowing(folder: Path, text: str, overlap: int) -> list[list[int]]:
    """The windows as transformers cuts them; its last one is shorter."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: list[list[int]] = tokenizer(
        text, truncation=True, max_length=LENGTH, stride=overlap, return_overflowing_tokens=True
    )["input_ids"]
    return found


def scores_of(backend: TorchBackend, rows: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each row scored as a text of its own, one a batch."""
    scores = []
    for row in rows:
        (job,) = jobs_of(backend, ["good"])
        job.encoded, job.tokens = np.array(row, dtype=np.int32), len(row)
        (value,) = backend.infer([job])
        assert isinstance(value, Classification)
        scores.append(list(value.scores.values()))
    return np.array(scores)


def test_a_text_that_is_cut_says_so_and_one_that_fits_does_not(bert: Path) -> None:
    backend = load(bert)
    whole = "good " * (LENGTH - 2)
    fits, longer = encode(backend, [whole, whole + "good"])
    assert (fits.tokens, fits.truncated) == (LENGTH, False)
    assert (longer.tokens, longer.truncated) == (LENGTH, True)
    assert longer.data.tolist() == fits.data.tolist()


def test_the_end_is_kept_where_the_tokenizer_says_so(tmp_path: Path) -> None:
    save_bert(tmp_path)
    edit(tmp_path / "tokenizer_config.json", truncation_side="left")
    ((_, row, truncated),) = encode(load(tmp_path), [LONG])
    expected = AutoTokenizer.from_pretrained(tmp_path)(LONG, truncation=True, max_length=LENGTH)["input_ids"]
    assert (row.tolist(), truncated) == (expected, True)


def test_a_text_beyond_the_limit_is_refused_by_policy_and_its_neighbours_are_not(bert: Path) -> None:
    backend = load(bert, policy="dead_letter")
    good, bad, last = backend.encode(["很好", LONG, "bad"])
    assert isinstance(bad, RecordError)
    assert (bad.reason, bad.detail) == ("too_long", "more than 20 tokens, which is model.max_length")
    plain = load(bert)
    assert [each.data.tolist() for each in (good, last)] == [  # type: ignore[union-attr]
        each.data.tolist() for each in encode(plain, ["很好", "bad"])
    ]


@pytest.mark.parametrize("overlap", [0, 5, 17])
def test_windows_are_those_of_transformers_but_for_the_last_which_is_as_long_as_the_others(
    bert: Path, overlap: int
) -> None:
    backend = load(bert, policy="windows", overlap=overlap, most=100)
    ((tokens, windows, truncated),) = encode(backend, [LONG])
    assert isinstance(windows, Windows) and not truncated
    expected = overflowing(bert, LONG, overlap)
    assert [row.tolist() for row in windows.rows[:-1]] == expected[:-1]
    ids = AutoTokenizer.from_pretrained(bert)(LONG, add_special_tokens=False)["input_ids"]
    assert windows.rows[-1].tolist() == [2, *ids[-(LENGTH - 2) :], 3]
    assert tokens == sum(map(len, windows.rows)) == LENGTH * len(expected)
    assert sum(windows.tokens) == len(ids), "every token of the text counts once"


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_text_in_windows_has_the_scores_of_its_pieces_pooled(bert: Path, pooling: str) -> None:
    backend = load(bert, policy="windows", overlap=5, pooling=pooling)
    together = classify(backend, ["很好", LONG, *TEXTS, LONG[4:]])
    for text, value in zip(["很好", LONG, *TEXTS, LONG[4:]], together, strict=True):
        ((_, data, _),) = encode(backend, [text])
        windows = data if isinstance(data, Windows) else Windows([data], [1])
        pieces = scores_of(backend, [row.tolist() for row in windows.rows])
        assert len(windows.rows) < 2 or np.ptp(pieces, axis=0).max() > 0.01, "the pieces must differ"
        weights = np.array(windows.tokens) / sum(windows.tokens)
        expected = pieces.max(axis=0) if pooling == "max" else weights @ pieces
        assert list(value.scores.values()) == pytest.approx(expected, abs=1e-5)
        assert value.label == max(value.scores, key=value.scores.__getitem__)
        assert value.score == value.scores[value.label]


def test_a_text_has_no_more_windows_than_it_may(bert: Path) -> None:
    backend = load(bert, policy="windows", overlap=2, most=3)
    room = LENGTH - 2
    most = room + 2 * (room - 2)
    (at_most, beyond, one) = encode(backend, ["good " * most, "good " * (most + 1), "good " * room])
    assert len(at_most.data.rows) == len(beyond.data.rows) == 3
    assert (at_most.truncated, beyond.truncated, one.truncated) == (False, True, False)
    assert one.tokens == LENGTH and isinstance(one.data, np.ndarray)


def test_windows_must_move_on(bert: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model.window_overlap is 18, and a row holds 18 tokens"):
        load(bert, policy="windows", overlap=18)
    load(bert, policy="truncate", overlap=18)


def test_one_window_that_is_not_a_number_is_the_error_of_its_text(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load(bert, policy="windows", overlap=0)
    jobs: list[Job] = jobs_of(backend, ["很好", LONG, "bad"])
    expected = backend.infer(jobs)
    forward = backend._forward

    def spoil(rows: Any) -> Any:
        logits = forward(rows)
        logits[2, 0] = float("nan")
        return logits

    monkeypatch.setattr(backend, "_forward", spoil)
    first, broken, last = backend.infer(jobs)
    assert isinstance(broken, RecordError) and broken.reason == "not_a_number"
    assert [first, last] == [expected[0], expected[2]]


def test_other_special_tokens_and_other_pieces(tmp_path: Path) -> None:
    """RoBERTa's are <s> and </s>."""
    save_roberta(tmp_path)
    backend = load(tmp_path, policy="windows", overlap=3)
    ((_, windows, _),) = encode(backend, [LONG[:60]])
    assert [row.tolist() for row in windows.rows[:-1]] == overflowing(tmp_path, LONG[:60], 3)[:-1]


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_padded_batch_counts_all_windows(tmp_path: Path, runtime: str) -> None:
    """A text in windows is longer than any text that the model takes."""
    backend = TorchBackend.load(
        str(save_family(tmp_path, "MPNet")),
        device="cpu",
        runtime=runtime,
        precision="fp32",
        max_length=32,
        long_texts=LongTexts("windows", 4, 16),
    )
    (encoding,) = backend.encode(["很好 bad " * 60])
    assert isinstance(encoding, Encoding) and encoding.tokens > 4 * 32
    assert backend.cost(texts=3, tokens=encoding.tokens, longest=encoding.tokens) == 3 * encoding.tokens
