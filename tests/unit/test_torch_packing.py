"""Packed attention: which families have it, that it is exact, and that a model it would falsify is caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForSequenceClassification
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from streamer.backends.torch import TorchBackend, attention
from streamer.backends.torch.attention import Packing, States, pack, round_up
from streamer.backends.torch.forward import Forward, Packed
from streamer.backends.torch.loading import load_encoder, load_model
from streamer.backends.torch.location import locate
from streamer.backends.torch.precision import set_precision
from streamer.backends.torch.selftest import choose_forward, confirm
from tests.tiny_models import TEXTS, classify, encode, save_bert, save_family

CPU = torch.device("cpu")

PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("Bert", {}),
    "RoBERTa": ("Roberta", {}),
    "XLM-R": ("XLMRoberta", {}),
    "CamemBERT": ("Camembert", {}),
    "DistilBERT": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "ELECTRA": ("Electra", {"embedding_size": 16}),
    "ERNIE": ("Ernie", {}),
    "EuroBERT": ("EuroBert", {"num_key_value_heads": 2}),
    "EuroBERT, first": ("EuroBert", {"num_key_value_heads": 4, "classifier_pooling": "bos"}),
    "EuroBERT, mean": ("EuroBert", {"num_key_value_heads": 4, "classifier_pooling": "mean"}),
    "ALBERT": ("Albert", {"embedding_size": 16}),
    "ModernBERT": ("ModernBert", {"num_hidden_layers": 4, "local_attention": 8}),
    "ModernBERT, mean": ("ModernBert", {"num_hidden_layers": 4, "classifier_pooling": "mean"}),
}
NO_CALLS = "0 of 2 layers"
PADDED: dict[str, tuple[str, dict[str, Any], str]] = {
    "MPNet": ("MPNet", {}, NO_CALLS),
    "DeBERTa": ("Deberta", {}, NO_CALLS),
    "DeBERTa v2": ("DebertaV2", {}, NO_CALLS),
    "XLM": ("XLM", {}, NO_CALLS),
    "BigBird": ("BigBird", {"attention_type": "original_full"}, NO_CALLS),
    # Rotary positions are counted along the row, which is longer than any text.
    "RoFormer": ("RoFormer", {}, "RoFormerForSequenceClassification fails on a packed row"),
    "RoFormer, many positions": ("RoFormer", {"max_position_embeddings": 512}, NO_CALLS),
}

Rows = list[np.ndarray[Any, np.dtype[np.int32]]]


def load(folder: Path) -> TorchBackend:
    return TorchBackend.load(str(folder), device="cpu", precision="fp32")


def scores_alone(folder: Path, backend: TorchBackend) -> list[list[float]]:
    """What the plain model says of each text, alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [torch.from_numpy(row.astype(np.int64))[None] for _, row, _ in encode(backend, TEXTS)]
    with torch.inference_mode():
        found = [model(input_ids=row, attention_mask=torch.ones_like(row)).logits.softmax(-1) for row in rows]
    return [scores[0].tolist() for scores in found]


def assert_exact(folder: Path, backend: TorchBackend) -> None:
    expected = scores_alone(folder, backend)
    assert len({round(scores[0], 2) for scores in expected}) > 3, "the model must tell texts apart"
    for value, scores in zip(classify(backend, TEXTS), expected, strict=True):
        assert list(value.scores.values()) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(("family", "settings"), PACKED.values(), ids=PACKED)
def test_these_families_need_no_padding(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    backend = load(save_family(tmp_path, family, **settings))
    described = backend.describe()
    assert (described["attention"], described.get("attention_reason")) == ("packed", None)
    assert backend.cost(texts=3, tokens=30, longest=20) == 30
    assert_exact(tmp_path, backend)


@pytest.mark.parametrize(("family", "settings", "reason"), PADDED.values(), ids=PADDED)
def test_these_families_are_padded_and_say_why(
    tmp_path: Path, family: str, settings: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = load(save_family(tmp_path, family, **settings))
    described = backend.describe()
    assert described["attention"] == "padded"
    assert reason in described["attention_reason"]
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [f"batches are padded, which is slower: {described['attention_reason']}"]
    assert backend.cost(texts=3, tokens=30, longest=20) == 60
    assert_exact(tmp_path, backend)


def ignore_borders(states: States, packing: Packing, scale: float | None, window: int | None) -> Tensor:
    query, key, value = (each.transpose(0, 1) for each in states)
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(0, 1)


def ignore_the_window(states: States, packing: Packing, scale: float | None, window: int | None) -> Tensor:
    return BY_RUNS(states, packing, scale, None)


BY_RUNS = attention._by_runs


@pytest.mark.parametrize(
    ("family", "wrong"),
    [("Bert", ignore_borders), ("ModernBert", ignore_the_window)],
    ids=["borders", "window"],
)
def test_the_self_test_catches_wrong_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, wrong: Any
) -> None:
    monkeypatch.setattr(attention, "_by_runs", wrong)
    backend = load(save_family(tmp_path, family, local_attention=8))
    assert "logits of" in backend.describe()["attention_reason"]
    assert_exact(tmp_path, backend)


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_the_self_test_catches_wrong_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """What counts on across borders, or starts where another family does, is not taken."""

    def wrong(rows: Rows, device: torch.device, padding_index: int | None = None) -> Packing:
        packing = pack(rows, device, padding_index)
        packing.positions += 1
        return packing

    monkeypatch.setattr("streamer.backends.torch.forward.pack", wrong)
    folder = save_family(tmp_path, family)
    assert load(folder).describe()["attention"] == "padded"


def test_a_layer_that_is_not_called_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bert(tmp_path)
    monkeypatch.setattr("streamer.backends.torch.forward.Packed.run", lambda self, packing: torch.zeros(7, 3))
    assert "0 of 2 layers of Bert" in load(tmp_path).describe()["attention_reason"]


def test_a_row_holds_texts_positions_and_borders() -> None:
    rows = [np.array(ids, dtype=np.int32) for ids in ([5, 6], [7, 8], [9], [2, 3, 4])]
    packing = pack(rows, CPU)
    assert packing.ids[0, :8].tolist() == [5, 6, 7, 8, 9, 2, 3, 4]
    assert packing.positions[0, :8].tolist() == [0, 1, 0, 1, 0, 0, 1, 2]
    assert packing.borders.tolist() == [0, 2, 4, 5, 8]
    assert (packing.tokens, packing.longest, packing.runs) == (8, 3, [(0, 2, 2), (4, 1, 1), (5, 1, 3)])
    assert packing.ids.shape == packing.positions.shape == (1, 16)
    assert {each.dtype for each in (packing.ids, packing.positions, packing.borders)} == {torch.int32}


def test_positions_around_a_padding_token_are_robertas() -> None:
    """Also where a text holds the padding token as a word: "<pad>" is one."""
    rows = [np.array(ids, dtype=np.int32) for ids in ([0, 5, 1, 6], [1, 1, 7], [8])]
    found = pack(rows, CPU, padding_index=1).positions[0, :8].tolist()
    reference: Any = RobertaEmbeddings.create_position_ids_from_input_ids
    assert found == [at for row in rows for at in reference(torch.from_numpy(row)[None], 1)[0].tolist()]


def test_sizes_are_few_and_near() -> None:
    sizes = {round_up(tokens) for tokens in range(1, 4097)}
    assert len(sizes) < 100
    for tokens in range(1, 4097):
        assert tokens <= round_up(tokens) <= max(tokens + 15, tokens * 17 / 16)


def varlen_attn(  # noqa: PLR0917  as torch has it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """The function of torch 2.11, written out: with its keywords, and no others."""
    assert query.shape == key.shape == value.shape, "torch 2.11 groups no heads"
    assert cu_seq_q.dtype == torch.int32 and max_q == max_k == int(cu_seq_q.diff().max())
    texts = []
    for start, stop in zip(cu_seq_q[:-1].tolist(), cu_seq_k[1:].tolist(), strict=True):
        at = torch.arange(stop - start)
        far = at[None, :] - at[:, None]
        left, right = (stop if side < 0 else side for side in window_size)
        mask = (far >= -left) & (far <= right)
        q, k, v = (each[start:stop].transpose(0, 1) for each in (query, key, value))
        texts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(texts)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_kernel_of_cuda_is_asked_for_the_same(
    monkeypatch: pytest.MonkeyPatch, window: int | None, key_heads: int
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    torch.manual_seed(3)
    packing = pack([np.ones(length, dtype=np.int32) for length in (5, 2, 2, 7)], CPU)
    states = (torch.randn(16, 4, 8), torch.randn(16, key_heads, 8), torch.randn(16, key_heads, 8))
    expected = attention._by_runs(states, packing, 0.3, window)
    found = attention._by_kernel(states, packing, 0.3, window)
    torch.testing.assert_close(found, expected)


def second_test(folder: Path, precision: str, spoil: float = 1.0) -> Forward:
    """What the test on the device says, here on the CPU, of a packed model whose logits are scaled."""
    location = locate(str(folder))
    model = load_model(location, "AutoModelForSequenceClassification")
    encoder = load_encoder(location, model, None)
    packed = choose_forward(model, encoder)
    assert isinstance(packed, Packed)
    set_precision(model, precision, CPU)
    run = packed.run
    packed.run = lambda packing: run(packing) * spoil  # type: ignore[method-assign]
    return confirm(packed, model, encoder, precision)


def test_the_device_is_asked_again_in_its_precision(tmp_path: Path) -> None:
    save_bert(tmp_path)
    assert second_test(tmp_path, "bf16").attention == "packed"
    refused = second_test(tmp_path, "fp32")
    assert refused.attention == "padded" and "not fp32" in str(refused.reason)
    wrong = second_test(tmp_path, "bf16", spoil=2.0)
    assert wrong.attention == "padded" and "logits differ by" in str(wrong.reason)
    rows = [np.array([2, 7, 8, 3], dtype=np.int32), np.array([2, 3], dtype=np.int32)]
    with torch.inference_mode():
        assert wrong(rows).shape == (2, 3), "with the attention that it had before"
