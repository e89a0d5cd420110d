"""The layers in OpenVINO: the same answers, what it refuses, and nothing said to anybody."""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamer.backends.torch import TorchBackend
from streamer.backends.torch.devices import translate
from streamer.backends.torch.gate import DriftError
from streamer.backends.torch.loading import load_model
from streamer.backends.torch.openvino import Layers, States, check_openvino
from streamer.backends.torch.precision import Numbers
from streamer.errors import ConfigurationError, OutOfMemory, StartupError
from tests.tiny_models import TEXTS, classify, save_bert, save_family
from tests.unit.test_torch_packing import assert_exact

CPU = torch.device("cpu")


def load(folder: Path, precision: str = "fp32", **settings: Any) -> TorchBackend:
    return TorchBackend.load(str(folder), device="cpu", runtime="openvino", precision=precision, **settings)


# With a pooler, without one, one that is a layer, means that the head takes, a head that takes every token.
@pytest.mark.parametrize("family", ["Bert", "Roberta", "Albert", "ModernBert", "EuroBert", "MPNet"])
def test_it_says_what_the_plain_model_says(tmp_path: Path, family: str) -> None:
    backend = load(save_family(tmp_path, family))
    described = backend.describe()
    assert (described["path"], described["attention"]) == ("openvino", "padded")
    assert "attention_reason" not in described, "it was chosen, and is no fall-back"
    assert_exact(tmp_path, backend)


def test_layers_are_openvinos_alone(tmp_path: Path) -> None:
    """What it was converted from is gone, and a batch leaves the states of the one before as they were."""
    backend = load(save_bert(tmp_path))
    layers = backend._model.base_model
    assert isinstance(layers, Layers)
    assert {name.partition(".")[0] for name, _ in layers.named_parameters()} == {"pool"}
    ids = torch.tensor([[2, 7, 8, 3]])
    states = layers(ids, torch.ones_like(ids)).last_hidden_state
    before = states.clone()
    layers(ids.flip(1), torch.ones_like(ids))
    assert torch.equal(states, before)


def test_batches_have_few_shapes(tmp_path: Path) -> None:
    backend = load(save_bert(tmp_path, positions=60))
    assert backend.cost(texts=3, tokens=30, longest=20) == 3 * 24
    assert backend.max_length == 60
    longest = "很好" * 60
    assert classify(backend, [longest, "很"])[0].scores == pytest.approx(
        classify(backend, [longest])[0].scores, abs=1e-5
    )


@pytest.mark.parametrize(
    ("precision", "quantize", "apart"), [("bf16", "none", 0.1), ("fp32", "int8", 0.2)], ids=["bf16", "int8"]
)
def test_rounded_it_says_nearly_the_same(
    tmp_path: Path, precision: str, quantize: str, apart: float, capfd: pytest.CaptureFixture[str]
) -> None:
    save_bert(tmp_path, initializer_range=0.2)
    exact = classify(load(tmp_path), TEXTS)
    backend = load(tmp_path, precision, quantize=quantize, max_drift=0.2)
    found = classify(backend, TEXTS)
    for value, expected in zip(found, exact, strict=True):
        assert value.scores == pytest.approx(expected.scores, abs=apart)
    assert found != exact, "or nothing was rounded"
    assert capfd.readouterr().out == "", "standard output may hold results"


def test_auto_takes_fp32_where_bf16_changes_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    described = load(save_bert(tmp_path), "auto", max_drift=0.0).describe()
    assert (described["precision"], described["path"]) == ("fp32", "openvino")


def test_int8_passes_the_gate_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DriftError, match=r"model.runtime: openvino, .*int8 changes .* model.max_drift allows 0:"
    ):
        load(save_bert(tmp_path), quantize="int8", max_drift=0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wrong_logits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """As exactly as in float32, also where the answers are to be rounded."""

    def look_at_padding(self: States, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.base(input_ids=ids, attention_mask=torch.ones_like(mask)).last_hidden_state

    monkeypatch.setattr(States, "forward", look_at_padding)
    with pytest.raises(StartupError, match=r"computes other logits for BertFor.*differ by .*; set torch"):
        load(save_bert(tmp_path), precision, max_drift=1.0)


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", "/tmp/torchinductor")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(StartupError, match=r"fails here .*Read-only.* folder for temporary files"):
        load(save_bert(tmp_path))


# -- memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_what_was_converted_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantize: str) -> None:
    weights = []

    def watched(*arguments: Any) -> Any:
        model = load_model(*arguments)
        weights.append(weakref.ref(model.base_model.encoder.layer[0].output.dense.weight))
        return model

    monkeypatch.setattr("streamer.backends.torch.backend.load_model", watched)
    backend = load(save_bert(tmp_path), quantize=quantize, max_drift=1.0)
    assert [weight() for weight in weights] == [None]
    classify(backend, TEXTS)


class Stale:
    """What OpenVINO does with one thread and no memory: nothing, and its output is that of another batch."""

    def infer(self, _: object, **__: object) -> list[NDArray[np.float32]]:
        return [np.zeros((1, 8, 32), dtype=np.float32)]


def test_a_batch_that_was_not_computed_is_out_of_memory(tmp_path: Path) -> None:
    backend = load(save_bert(tmp_path))
    backend._model.base_model._request = Stale()
    with pytest.raises(OutOfMemory, match="9 texts"):
        classify(backend, TEXTS)


def test_its_own_word_for_no_memory_is_understood() -> None:
    message = (
        "Exception from src/inference/src/cpp/infer_request.cpp:224:\n"
        "Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 26214400 bytes of memory\n"
    )
    assert isinstance(translate(RuntimeError(message), "9 texts"), OutOfMemory)


def test_a_model_that_it_cannot_convert_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_family(tmp_path, "XLM")
    level = logging.getLogger().level
    with pytest.raises(StartupError, match=r"openvino, which cannot take XLMFor\w+ \(.+\): set torch"):
        load(tmp_path)
    assert logging.getLogger().level == level, "or streamer's own warnings are lost"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("numbers", "device", "says"),
    [
        (Numbers("bf16"), torch.device("cuda", 0), "openvino, which is for the CPU: on cuda:0, take torch"),
        (Numbers("fp16"), CPU, "openvino, which computes in fp32 or bf16, not fp16"),
        (Numbers("amp"), CPU, "openvino, which computes in fp32 or bf16, not amp"),
    ],
)
def test_what_does_not_go_together_is_named(numbers: Numbers, device: torch.device, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check_openvino(numbers, device)


def test_another_runtime_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'onnx': it must be one of torch, openvino"):
        TorchBackend.load(str(save_bert(tmp_path)), device="cpu", runtime="onnx")


@pytest.mark.parametrize(("package", "quantize"), [("openvino", "none"), ("nncf", "int8")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str, quantize: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StartupError, match=r"openvino needs openvino and nncf .*'streamer\[openvino\]'"):
        check_openvino(Numbers("fp32", quantize), CPU)


def test_nobody_is_told(tmp_path: Path) -> None:
    """Their telemetry is on unless somebody turns it off. NNCF's never is under pytest: hence a process."""
    save_bert(tmp_path)
    code = """if True:
        import logging, sys
        from streamer.backends.torch import TorchBackend
        settings = {"precision": "fp32", "quantize": "int8", "max_drift": 1.0}
        TorchBackend.load(sys.argv[1], device="cpu", runtime="openvino", **settings)
        from nncf.telemetry import wrapper
        from openvino.tools.ovc import telemetry_utils
        print(telemetry_utils.tm.__name__, type(wrapper.telemetry).__name__)
        print([name for name, module in sys.modules.items() if "openvino_telemetry" in name and module])
        print(logging.getLoggerClass().__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == ["openvino.tools.ovc.telemetry_stub MagicMock", "[]", "Logger"]
