"""TorchBackend against transformers' own pipeline, on models made here; and how its batches fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, pipeline

from streamer.backends.torch import TorchBackend, location
from streamer.errors import (
    ConfigurationError,
    DeviceError,
    OutOfMemory,
    RecordError,
    StartupError,
    StreamerError,
)
from streamer.records import Classification
from tests.tiny_models import TEXTS, classify, edit, encode, jobs_of, save_bert, save_distilbert, save_roberta

FAMILIES = {"bert": save_bert, "distilbert": save_distilbert, "roberta": save_roberta}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save: Callable[[Path], Path] = FAMILIES[request.param]
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def backend(bert: Path) -> TorchBackend:
    return TorchBackend.load(str(bert), device="cpu", precision="fp32")


def reference(folder: Path, texts: list[str], **settings: Any) -> list[dict[str, float]]:
    """What the pipeline says of each text alone, without any padding."""
    classifier: Any = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device="cpu",
        top_k=None,
        **settings,
    )
    return [{found["label"]: found["score"] for found in classifier([text])[0]} for text in texts]


def assert_same(values: list[Classification], expected: list[dict[str, float]]) -> None:
    assert len(values) == len(expected)
    for value, scores in zip(values, expected, strict=True):
        assert value.scores == pytest.approx(scores, abs=1e-5)
        assert value.label == max(scores, key=scores.__getitem__)
        assert value.score == value.scores[value.label]


def test_a_mixed_batch_says_what_the_pipeline_says_of_each_text_alone(family: Path) -> None:
    expected = reference(family, TEXTS, truncation=True, max_length=64)
    assert len({round(scores["positive"], 2) for scores in expected}) > 4, "the model must tell texts apart"
    assert_same(classify(TorchBackend.load(str(family), device="cpu", precision="fp32"), TEXTS), expected)


def test_padding_never_changes_a_score(family: Path) -> None:
    backend = TorchBackend.load(str(family), device="cpu", precision="fp32")
    together = classify(backend, TEXTS)
    for text, value in zip(TEXTS, together, strict=True):
        (alone,) = classify(backend, [text])
        assert alone.scores == pytest.approx(value.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"problem_type": "multi_label_classification"}, None),
        ({"id2label": {0: "spam"}, "label2id": {"spam": 0}}, None),
        ({"problem_type": "regression", "id2label": {0: "stars"}, "label2id": {"stars": 0}}, None),
        ({"problem_type": "multi_label_classification", "id2label": {0: "x"}, "label2id": {"x": 0}}, None),
        ({"problem_type": "regression"}, None),
        ({"problem_type": "single_label_classification"}, 1.0),
    ],
    ids=[
        "multi-label",
        "single output",
        "regression",
        "multi-label of one",
        "regression of several",
        "single-label",
    ],
)
def test_every_kind_of_head_says_what_the_pipeline_says(
    tmp_path: Path, settings: dict[str, Any], total: float | None
) -> None:
    save_bert(tmp_path, **settings)
    values = classify(TorchBackend.load(str(tmp_path), device="cpu", precision="fp32"), TEXTS)
    assert_same(values, reference(tmp_path, TEXTS))
    if total is not None:
        assert all(sum(value.scores.values()) == pytest.approx(total, abs=1e-5) for value in values)


def test_encode_gives_the_ids_of_the_tokenizer_without_padding(family: Path) -> None:
    backend = TorchBackend.load(str(family), device="cpu", precision="fp32")
    expected = AutoTokenizer.from_pretrained(family)(TEXTS, truncation=True, max_length=64)["input_ids"]
    found = encode(backend, TEXTS)
    assert [row.tolist() for _, row, _ in found] == expected
    assert [each.tokens for each in found] == [len(ids) for ids in expected]
    assert {row.dtype for _, row, _ in found} == {np.dtype(np.int32)}
    assert backend.encode([]) == []


def test_long_texts_are_cut_as_the_pipeline_cuts_them(family: Path) -> None:
    long = ["很好 good " * 200, "很好"]
    backend = TorchBackend.load(str(family), device="cpu", precision="fp32", max_length=20)
    cut, whole = encode(backend, long)
    assert (cut.tokens, cut.truncated, whole.truncated) == (20, True, False)
    assert_same(classify(backend, long), reference(family, long, truncation=True, max_length=20))


def test_all_of_a_text_counts_when_its_first_characters_hold_few_tokens(backend: TorchBackend) -> None:
    sparse = " " * 100_000 + "很好"
    short, long = encode(backend, ["很好", sparse])
    assert long.data.tolist() == short.data.tolist()


def test_the_longest_text_fits_into_the_positions_of_the_model(family: Path) -> None:
    backend = TorchBackend.load(str(family), device="cpu", precision="fp32")
    assert backend.max_length == 64  # of 66 positions, RoBERTa's first two are not for tokens
    classify(backend, ["很好 good " * 500])
    with pytest.raises(ConfigurationError, match=r"max_length is 65, .* positions for 64 tokens"):
        TorchBackend.load(str(family), device="cpu", precision="fp32", max_length=65)


def test_max_length_heeds_the_tokenizers_own_limit(tmp_path: Path) -> None:
    save_bert(tmp_path)
    edit(tmp_path / "tokenizer_config.json", model_max_length=32)
    assert TorchBackend.load(str(tmp_path), device="cpu", precision="fp32").max_length == 32
    assert TorchBackend.load(str(tmp_path), device="cpu", precision="fp32", max_length=48).max_length == 48
    with pytest.raises(ConfigurationError, match=r"special tokens alone are 2"):
        TorchBackend.load(str(tmp_path), device="cpu", precision="fp32", max_length=2)


def test_half_a_surrogate_pair_is_the_error_of_its_record(backend: TorchBackend) -> None:
    with pytest.raises(RecordError, match=r"surrogate") as caught:
        backend.encode(["good", "\ud83d"])
    assert caught.value.reason == "not_unicode"
    assert len(backend.encode(["good"])) == 1


def test_bf16_keeps_the_head_in_float32_and_the_labels(family: Path) -> None:
    exact = classify(TorchBackend.load(str(family), device="cpu", precision="fp32"), TEXTS)
    backend = TorchBackend.load(str(family), device="cpu", precision="bf16")
    assert backend.describe()["precision"] == "bf16"
    dtypes = {name: parameter.dtype for name, parameter in backend._model.named_parameters()}
    head = {name for name in dtypes if "classifier" in name or "pooler" in name}
    assert {dtypes.pop(name) for name in head} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}
    for value, expected in zip(classify(backend, TEXTS), exact, strict=True):
        assert value.scores == pytest.approx(expected.scores, abs=0.1)


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_processor_has_units_for_it(
    bert: Path, monkeypatch: pytest.MonkeyPatch, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    assert TorchBackend.load(str(bert), device="cpu").describe()["precision"] == precision


# -- failures of a batch -------------------------------------------------------------------------------------


def test_an_output_that_is_not_a_number_is_the_error_of_its_text_alone(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = classify(backend, TEXTS)
    forward = backend._forward

    def spoil(rows: Any) -> Any:
        logits = forward(rows)
        logits[2, 1] = float("nan")
        logits[5, 0] = float("inf")
        return logits

    monkeypatch.setattr(backend, "_forward", spoil)
    values = backend.infer(jobs_of(backend, TEXTS))
    for number, value in enumerate(values):
        if number in (2, 5):
            assert isinstance(value, RecordError)
            assert value.reason == "not_a_number"
        else:
            assert value == expected[number]


@pytest.mark.parametrize(
    ("raised", "meaning"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), OutOfMemory),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            OutOfMemory,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (torch.AcceleratorError("CUDA error: device-side assert triggered\nadvice"), DeviceError),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nadvice"), DeviceError),
    ],
)
def test_the_devices_errors_are_told_apart(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch, raised: Exception, meaning: type[StreamerError]
) -> None:
    def fail(rows: Any) -> None:
        raise raised

    jobs = jobs_of(backend, TEXTS)
    monkeypatch.setattr(backend, "_forward", fail)
    with pytest.raises(meaning) as caught:
        backend.infer(jobs)
    longest = max(job.tokens for job in jobs)
    assert f"{len(TEXTS)} texts, the longest of {longest} tokens" in str(caught.value)
    assert "advice" not in str(caught.value)


def test_a_batch_that_the_cpu_cannot_hold_is_out_of_memory(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real message of the real allocator, not one that this test made up."""
    jobs = jobs_of(backend, ["good"])
    monkeypatch.setattr(backend, "_forward", lambda _: torch.empty(2**48, dtype=torch.float32))
    with pytest.raises(OutOfMemory):
        backend.infer(jobs)


def test_an_error_about_the_data_stays_what_it_is(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: Any) -> None:
        raise RuntimeError("shapes do not match")

    jobs = jobs_of(backend, ["good"])
    monkeypatch.setattr(backend, "_forward", fail)
    with pytest.raises(RuntimeError, match=r"shapes do not match"):
        backend.infer(jobs)


def test_warm_up_runs_the_largest_shape_and_stops_at_its_limit(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []
    forward = backend._forward

    def watch(rows: Any) -> Any:
        shapes.append((len(rows), max(map(len, rows))))
        return forward(rows)

    monkeypatch.setattr(backend, "_forward", watch)
    assert 0 < backend.warm_up() < 30
    assert shapes[0][0] == 1
    assert max(tokens for _, tokens in shapes) == backend.max_length
    shapes.clear()
    backend.warm_up(limit=-1)
    assert shapes == []


def test_warm_up_says_when_the_device_is_too_small(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(backend, "_forward", fail)
    with pytest.raises(StartupError, match=r"cpu has no memory for one text .* lower model.max_length"):
        backend.warm_up()


def test_what_does_not_fit_at_warm_up_is_never_offered(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamer.app import new_budget
    from streamer.settings import Config

    forward = backend._forward

    def small(rows: Any) -> Any:
        if len(rows) > 8:
            raise MemoryError
        return forward(rows)

    monkeypatch.setattr(backend, "_forward", small)
    try:
        assert new_budget(Config(), backend).ceiling == Config().batching.max_tokens
        backend.warm_up()
        assert backend.does_not_fit == 16 * backend.max_length
        assert new_budget(Config(), backend).ceiling <= backend.does_not_fit // 2
    finally:
        backend.does_not_fit = None  # others share it


def test_memory_bounds_the_batches_of_a_device_that_tells(
    backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 texts of the warm-up took 1,000 bytes, 4,000 are left for the batches of two threads."""
    from streamer.app import new_budget
    from streamer.backends.torch import devices
    from streamer.settings import Config
    from streamer.settings.compute import Batching

    def taken(device: Any, run: Any) -> int:
        run()
        return 1000

    monkeypatch.setattr(devices, "memory_taken", taken)
    monkeypatch.setattr(devices, "memory_free", lambda device: 4000)
    monkeypatch.setattr(backend, "threads", 2)
    try:
        backend.warm_up()
        assert backend.does_not_fit == 2 * 16 * backend.max_length
        config = Config(batching=Batching(max_tokens=1_000_000, sizing="fixed"))
        assert new_budget(config, backend).ceiling == 16 * backend.max_length
    finally:
        backend.does_not_fit = None  # others share it


def test_describe_names_what_was_loaded(backend: TorchBackend, bert: Path) -> None:
    found = backend.describe()
    assert found.pop("path") in ("generic", "functional"), "whichever is faster here"
    parameters = found.pop("parameters")
    assert parameters == sum(p.numel() for p in BertModel.from_pretrained(bert).parameters()) + 32 * 3 + 3
    assert found == {
        "name": bert.name,
        "revision": location.content_hash(bert),
        "device": "cpu",
        "precision": "fp32",
        "quantize": "none",
        "labels": ["negative", "neutral", "positive"],
        "max_length": 64,
        "attention": "packed",
    }
