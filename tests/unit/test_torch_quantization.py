"""Precisions and quantizations: what they compute, for which devices they are, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from streamer.backends.torch import TorchBackend
from streamer.backends.torch.linear import Dense, Int8
from streamer.backends.torch.precision import Numbers
from streamer.backends.torch.quantization import check_quantization, quantize
from streamer.errors import ConfigurationError, StartupError, StreamerError
from tests.tiny_models import TEXTS, classify, save_bert, save_family

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def dense() -> Dense:
    torch.manual_seed(3)
    return Dense(nn.Linear(64, 48))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 2% of the largest: 8 bits for the input, 8 for the weights."""
    assert found.dtype == expected.dtype
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_is_the_same_layer_within_its_digits(dense: Dense, dtype: torch.dtype) -> None:
    layer = Int8(dense)
    dense.to(dtype)
    x, residual = torch.randn(32, 64, dtype=dtype), torch.randn(32, 48, dtype=dtype)
    before = residual.clone()
    with torch.inference_mode():
        close(layer(x), dense(x))
        close(layer(x.view(4, 8, 64)), dense(x).view(4, 8, 48))
        close(layer.activated(x, "gelu"), dense.activated(x, "gelu"))
        close(layer.activated(x, "relu"), dense.activated(x, "relu"))
        close(layer.added(x, residual), dense.added(x, residual))
    assert torch.equal(residual, before)


@pytest.mark.parametrize("low", [0.0, -1.0, 3.0], ids=["all zero", "negative", "positive"])
def test_int8_takes_inputs_on_one_side_of_zero(dense: Dense, low: float) -> None:
    x = torch.linspace(low, 0.0, 64).expand(4, 64).contiguous()
    with torch.inference_mode():
        close(Int8(dense)(x), dense(x))


def test_int8_leaves_the_head_alone() -> None:
    base = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(8, 8)), "pooler": nn.Linear(8, 8)})
    quantize(base, "int8")
    assert [type(module).__name__ for module in base.modules() if not list(module.children())] == [
        "Int8",
        "Linear",
    ]


@pytest.mark.parametrize("family", ["Bert", "ModernBert", "MPNet"], ids=["functional", "packed", "padded"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_int8_model_says_nearly_the_same(tmp_path: Path, family: str, precision: str) -> None:
    save_family(tmp_path, family, initializer_range=0.2)
    exact = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    backend = TorchBackend.load(
        str(tmp_path), device="cpu", precision=precision, quantize="int8", max_drift=0.2
    )
    assert backend.describe()["quantize"] == "int8"
    layers = backend._forward._states if family == "Bert" else backend._model.base_model  # type: ignore[attr-defined]
    assert any(isinstance(module, Int8) for module in layers.modules())
    for value, expected in zip(classify(backend, TEXTS), exact, strict=True):
        assert value.scores == pytest.approx(expected.scores, abs=0.1)
    assert classify(backend, TEXTS) != exact, "or nothing was rounded"


def test_fp16_rounds_less_than_bf16(tmp_path: Path) -> None:
    save_bert(tmp_path)
    exact = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    backend = TorchBackend.load(str(tmp_path), device="cpu", precision="fp16")
    assert backend.describe()["precision"] == "fp16"
    for value, expected in zip(classify(backend, TEXTS), exact, strict=True):
        assert value.scores == pytest.approx(expected.scores, abs=0.01)


@pytest.mark.parametrize("family", ["Bert", "MPNet"], ids=["packed", "padded"])
def test_amp_multiplies_in_half_and_keeps_weights_and_head_in_float32(tmp_path: Path, family: str) -> None:
    save_family(tmp_path, family)
    backend = TorchBackend.load(str(tmp_path), device="cpu", precision="amp")
    found: dict[str, torch.dtype] = {}
    for name, module in backend._model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.dtype == torch.float32
            module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.dtype}))
    classify(backend, TEXTS)
    head = {name for name in found if "classifier" in name or "pooler" in name}
    assert head, "the head has run"
    assert {found.pop(name) for name in head} == {torch.float32}
    assert set(found.values()) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("numbers", "device", "says"),
    [
        (Numbers("bf16", "int8"), CUDA, "int8, which is for the CPU: on cuda:0, take fp8"),
        (Numbers("bf16", "fp8"), CPU, "fp8, which is for CUDA: on cpu, take int8"),
        (Numbers("fp32", "fp8"), CUDA, "fp8, which goes with bf16, not fp32"),
        (Numbers("amp", "int8"), CPU, "int8, which computes the rest in fp32 or bf16, not amp"),
        (Numbers("fp32", "int4"), CPU, "'int4': it must be one of none, int8, fp8"),
    ],
)
def test_what_does_not_go_together_is_named(numbers: Numbers, device: torch.device, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check_quantization(numbers, device)


@pytest.mark.parametrize(
    ("capability", "says"),
    [((8, 0), r"capability 8\.0: it takes 8\.9"), ((9, 0), r"fp8 needs torchao .* 'streamer\[fp8\]'")],
    ids=["no unit", "no package"],
)
def test_fp8_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(StartupError, match=says):
        check_quantization(Numbers("bf16", "fp8"), CUDA)


def test_a_library_without_int8_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(StartupError, match=r"built without oneDNN: set none"):
        check_quantization(Numbers("fp32", "int8"), CPU)


def test_a_processor_that_refuses_int8_is_a_refusal_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("could not create a primitive descriptor\nadvice")

    monkeypatch.setattr(Int8, "__init__", refuse)
    with pytest.raises(StreamerError, match=r"int8, which fails here: could not create a primitive desc.*r$"):
        TorchBackend.load(str(save_bert(tmp_path)), device="cpu", quantize="int8")
