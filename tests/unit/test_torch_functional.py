"""Our own code for the layers: which families have them, that it is exact, and when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamer.backends.torch import TorchBackend, functional, prepare, race
from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.forward import Forward, Packed
from streamer.backends.torch.functional import Functional, find_names
from streamer.backends.torch.linear import ACTIVATIONS, Blocked, Dense
from streamer.backends.torch.loading import load_encoder, load_model
from streamer.backends.torch.location import locate
from streamer.backends.torch.selftest import choose_forward, drift_of
from tests.tiny_models import TEXTS, classify, save_family

DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
FAST: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("Bert", {}),
    "RoBERTa": ("Roberta", {}),
    "XLM-R": ("XLMRoberta", {}),
    "CamemBERT": ("Camembert", {}),
    "DistilBERT": ("DistilBert", DISTIL),
    "ELECTRA": ("Electra", {"embedding_size": 16}),
    "ERNIE": ("Ernie", {}),
}
MAKES = {"as trained": lambda dense: dense, "blocked": Blocked}


@pytest.fixture
def always_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race, which times, is always won by our own code."""
    monkeypatch.setattr(prepare, "fastest", lambda forwards, *_: (forwards[-1], 2.0))


def packed(folder: Path) -> tuple[Any, Any, Packed]:
    location = locate(str(folder))
    model = load_model(location, "AutoModelForSequenceClassification")
    encoder = load_encoder(location, model, None)
    forward = choose_forward(model, encoder)
    assert isinstance(forward, Packed)
    return model, encoder, forward


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize(("family", "settings"), FAST.values(), ids=FAST)
def test_it_says_what_transformers_modules_say(
    tmp_path: Path, family: str, settings: dict[str, Any], make: Any
) -> None:
    model, encoder, generic = packed(save_family(tmp_path, family, **settings))
    names = find_names(model.base_model)
    assert names
    own = generic.through(Functional(model.base_model, names, make))
    assert drift_of(own, generic, model, encoder) < 1e-5


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_configs(tmp_path: Path, activation: str, make: Any) -> None:
    model, encoder, generic = packed(save_family(tmp_path, "Bert", hidden_act=activation))
    names = find_names(model.base_model)
    assert names
    own = generic.through(Functional(model.base_model, names, make))
    assert drift_of(own, generic, model, encoder) < 1e-5


@pytest.mark.usefixtures("always_ours")
@pytest.mark.parametrize(("family", "settings"), FAST.values(), ids=FAST)
def test_a_loaded_model_runs_through_it_and_holds_its_layers_once(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    backend = TorchBackend.load(
        str(save_family(tmp_path, family, **settings)), device="cpu", precision="fp32"
    )
    assert backend.describe()["path"] == "functional"
    base = backend._model.base_model
    kept = sum(parameter.numel() for parameter in base.parameters())
    assert kept < backend.describe()["parameters"] / 2, "the layers are gone, the embeddings stay"
    together = classify(backend, TEXTS)
    for text, value in zip(TEXTS, together, strict=True):
        (alone,) = classify(backend, [text])
        assert alone.scores == pytest.approx(value.scores, abs=1e-5)


@pytest.mark.usefixtures("always_ours")
@pytest.mark.parametrize(
    ("family", "settings"),
    [("Albert", {"embedding_size": 16}), ("ModernBert", {}), ("Bert", {"hidden_act": "silu"})],
    ids=["other layers", "no such layers", "other activation"],
)
def test_other_models_keep_the_code_of_transformers(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    backend = TorchBackend.load(
        str(save_family(tmp_path, family, **settings)), device="cpu", precision="fp32"
    )
    assert backend.describe()["path"] == "generic"
    assert backend.describe()["attention"] == "packed"


@pytest.mark.usefixtures("always_ours")
def test_a_model_that_only_looks_like_one_of_them_keeps_the_code_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers have the right names, and add something that ours would not."""
    original = functional.Layer.forward
    monkeypatch.setattr(functional.Layer, "forward", lambda *args: original(*args) * 1.01)
    backend = TorchBackend.load(str(save_family(tmp_path, "Bert")), device="cpu", precision="fp32")
    assert backend.describe()["path"] == "generic"


@pytest.mark.usefixtures("always_ours")
def test_an_operator_that_is_missing_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(_: Dense) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    caplog.set_level("INFO")
    monkeypatch.setattr(prepare, "Blocked", missing)
    backend = TorchBackend.load(str(save_family(tmp_path, "Bert")), device="cpu", precision="fp32")
    assert backend.describe()["path"] == "generic"
    assert "transformers' code runs the layers" in caplog.text
    classify(backend, TEXTS)


# -- the race ------------------------------------------------------------------------------------------------


class Runner:
    """A forward that takes as long as it is told: (seconds alone, seconds in a batch)."""

    attention, path, reason = "packed", "generic", None

    def __init__(self, alone: float, batch: float) -> None:
        self.seconds = {1: alone, 48: batch}

    def __call__(self, rows: Sequence[Tokens]) -> Tensor:
        raise AssertionError("the test's clock does not run it")

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        return tokens


@pytest.mark.parametrize(
    ("seconds", "winner", "times"),
    [
        ([(1.0, 10.0), (0.5, 5.0)], 1, 2.0),
        ([(1.0, 10.0), (1.5, 15.0)], 0, 1.0),
        ([(1.0, 10.0), (0.9, 20.0)], 0, 1.0),
        ([(1.0, 10.0), (1.0, 10.0)], 1, 1.0),
        ([(1.0, 10.0), (1.02, 10.2)], 1, 1 / 1.02),
    ],
    ids=["faster", "slower", "faster alone only", "as fast", "as fast, but for noise"],
)
def test_the_last_one_wins_unless_another_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: list[tuple[float, float]], winner: int, times: float
) -> None:
    monkeypatch.setattr(race, "_seconds", lambda forward, rows: forward.seconds[len(rows)])
    runners: list[Forward] = [Runner(*each) for each in seconds]
    best, found = race.fastest(runners, 128, 1000)
    assert best is runners[winner]
    assert found == pytest.approx(times)


@pytest.mark.parametrize(("seconds", "turns"), [(0.1, 5), (0.5, 3), (9.0, 1)])
def test_large_models_have_fewer_turns(monkeypatch: pytest.MonkeyPatch, seconds: float, turns: int) -> None:
    timed: list[int] = []

    def take(forward: Any, rows: Sequence[Tokens]) -> float:
        timed.append(len(rows))
        return float(forward.seconds[len(rows)])

    monkeypatch.setattr(race, "_seconds", take)
    race.fastest([Runner(0.001, seconds), Runner(0.001, seconds)], 128, 1000)
    assert timed.count(1) == 2 * (1 + 5), "after one untimed turn each"
    assert timed.count(48) == 2 * (1 + turns)


def test_a_joined_layer_is_its_parts_side_by_side() -> None:
    parts = [nn.Linear(8, 4), nn.Linear(8, 6)]
    x = torch.from_numpy(np.arange(24, dtype=np.float32).reshape(3, 8))
    with torch.inference_mode():
        expected = torch.cat([part(x) for part in parts], dim=1)
        torch.testing.assert_close(Dense(*parts)(x), expected)
        assert Dense(parts[0]).weight is parts[0].weight
