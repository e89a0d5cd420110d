"""TorchBackend on a CUDA device: the same answers as on the CPU, and what a full device says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from streamer.backends.torch import TorchBackend, devices
from streamer.backends.torch.quantization import FP8_CAPABILITY
from streamer.errors import OutOfMemory, StartupError
from tests.tiny_models import TEXTS, classify, jobs_of, save_bert, save_family, save_roberta

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = save_bert if request.param == "bert" else save_roberta
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture
def full_device() -> Iterator[None]:
    """What is held already is all that PyTorch may have."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 20)) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_fp32_says_what_the_cpu_says(folder: Path) -> None:
    expected = classify(TorchBackend.load(str(folder), device="cpu", precision="fp32"), TEXTS)
    found = classify(TorchBackend.load(str(folder), device="cuda", precision="fp32"), TEXTS)
    for value, reference in zip(found, expected, strict=True):
        assert value.label == reference.label
        assert value.scores == pytest.approx(reference.scores, abs=1e-4)


def test_auto_is_bf16_with_a_float32_head(folder: Path) -> None:
    backend = TorchBackend.load(str(folder))
    described = backend.describe()
    assert described["device"].startswith("cuda:0 (")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        assert described["precision"] == "bf16"
    assert {parameter.dtype for parameter in backend._model.classifier.parameters()} == {torch.float32}
    expected = classify(TorchBackend.load(str(folder), device="cpu", precision="fp32"), TEXTS)
    for value, reference in zip(classify(backend, TEXTS), expected, strict=True):
        assert value.scores == pytest.approx(reference.scores, abs=0.1)


@pytest.mark.skipif(
    torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False),
    reason="this device multiplies no bf16",
)
@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert"])
def test_half_precision_runs_without_padding(tmp_path: Path, family: str) -> None:
    """Heads of 32 features, which the kernel of CUDA takes; a window shorter than the texts."""
    sizes = {"hidden_size": 128, "initializer_range": 0.1}
    local = {"num_hidden_layers": 4, "local_attention": 8} if family == "ModernBert" else {}
    save_family(tmp_path, family, **sizes, **local)
    backend = TorchBackend.load(str(tmp_path), device="cuda", precision="bf16")
    assert backend.describe()["attention"] == "packed"
    expected = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    for value, reference in zip(classify(backend, TEXTS), expected, strict=True):
        assert value.scores == pytest.approx(reference.scores, abs=0.1)


def test_fp32_is_padded_and_says_why(folder: Path) -> None:
    described = TorchBackend.load(str(folder), device="cuda", precision="fp32").describe()
    assert described["attention"] == "padded"
    assert "multiplies bf16 and fp16, not fp32" in described["attention_reason"]


def test_the_layers_run_by_our_own_code_and_nothing_waits_before_the_logits(tmp_path: Path) -> None:
    backend = TorchBackend.load(
        str(save_family(tmp_path, "Bert", hidden_size=128, initializer_range=0.1)), precision="bf16"
    )
    backend.warm_up()
    rows = [job.encoded for job in jobs_of(backend, TEXTS)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.inference_mode():
            logits = backend._forward(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert logits.shape == (len(TEXTS), 3)
    assert backend.describe()["attention"] == "packed"


def test_threads_share_the_device_and_mix_nothing_up(tmp_path: Path) -> None:
    """Each has a stream; batches of other sizes are under way in the others."""
    backend = TorchBackend.load(
        str(save_family(tmp_path, "Bert", hidden_size=128, initializer_range=0.1)), precision="bf16"
    )
    assert backend.threads == 2
    batches = [jobs_of(backend, TEXTS[: 1 + number % len(TEXTS)]) for number in range(200)]
    expected = [backend.infer(jobs) for jobs in batches]
    with ThreadPoolExecutor(backend.threads) as threads:
        assert list(threads.map(backend.infer, batches)) == expected


def test_amp_runs_without_padding(tmp_path: Path) -> None:
    save_family(tmp_path, "Bert", hidden_size=128, initializer_range=0.1)
    backend = TorchBackend.load(str(tmp_path), device="cuda", precision="amp")
    assert backend.describe()["attention"] == "packed"
    expected = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    for value, reference in zip(classify(backend, TEXTS), expected, strict=True):
        assert value.scores == pytest.approx(reference.scores, abs=0.1)


@pytest.mark.parametrize("family", ["Bert", "ModernBert"], ids=["functional", "generic"])
def test_fp8_says_nearly_the_same(tmp_path: Path, family: str) -> None:
    pytest.importorskip("torchao", reason="the extra fp8 is not installed")
    if torch.cuda.get_device_capability() < FP8_CAPABILITY:
        pytest.skip("this device multiplies no fp8")
    save_family(tmp_path, family, hidden_size=128, initializer_range=0.1)
    backend = TorchBackend.load(str(tmp_path), precision="bf16", quantize="fp8", max_drift=0.2)
    assert backend.describe()["quantize"] == "fp8"
    expected = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    for value, reference in zip(classify(backend, TEXTS), expected, strict=True):
        assert value.scores == pytest.approx(reference.scores, abs=0.1)


def test_warm_up_runs_on_the_device(folder: Path) -> None:
    assert 0 < TorchBackend.load(str(folder), device="cuda").warm_up() < 60


def test_the_warm_up_tells_what_the_memory_holds(folder: Path) -> None:
    """Twice the texts take about twice the memory, and what is said not to fit is more than was run."""
    backend = TorchBackend.load(str(folder), device="cuda")
    backend.warm_up()
    jobs = jobs_of(backend, TEXTS) * 64
    taken = [
        devices.memory_taken(backend.device, partial(backend.infer, jobs * times)) or 0 for times in (1, 2)
    ]
    assert taken[0]
    assert taken[1] == pytest.approx(2 * taken[0], rel=0.25)
    assert backend.does_not_fit
    assert backend.does_not_fit > 16 * backend.max_length
    assert devices.memory_free(backend.device) <= torch.cuda.get_device_properties(0).total_memory


def test_a_batch_that_does_not_fit_is_out_of_memory_and_the_next_one_runs(folder: Path) -> None:
    backend = TorchBackend.load(str(folder), device="cuda", precision="fp32")
    few = jobs_of(backend, TEXTS)
    expected = backend.infer(few)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    try:
        with pytest.raises(OutOfMemory, match=r"200000 texts"):
            backend.infer(few[:1] * 200_000)
        assert backend.infer(few) == expected
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("full_device")
def test_a_device_that_cannot_hold_the_model_is_named(tmp_path: Path) -> None:
    save_bert(tmp_path, hidden_size=512, intermediate_size=2048)
    with pytest.raises(StartupError, match=r"cannot be put on cuda:0"):
        TorchBackend.load(str(tmp_path), device="cuda")


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    count = torch.cuda.device_count()
    with pytest.raises(StartupError, match=rf"the last of {count} devices is cuda:{count - 1}"):
        TorchBackend.load(str(folder), device=f"cuda:{count}")
