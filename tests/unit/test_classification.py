"""From logits to labels and scores."""

from __future__ import annotations

import json
import logging
import math
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from streamer.errors import ConfigurationError, RecordError
from streamer.records import Classification
from streamer.tasks.classification import ClassificationTask, Shares


def logits(*rows: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, dtype=np.float32)


def test_softmax_scores_add_up_and_the_highest_is_the_label() -> None:
    (value,) = ClassificationTask(["no", "yes"]).values(logits([0.0, math.log(3)]))
    assert value == Classification("yes", 0.75, {"no": 0.25, "yes": 0.75})


def test_sigmoid_scores_stand_for_themselves() -> None:
    (value,) = ClassificationTask(["a", "b"], "sigmoid").values(logits([math.log(3), math.log(4)]))
    assert value == Classification("b", 0.8, {"a": 0.75, "b": 0.8})


def test_a_regression_score_is_the_value_itself() -> None:
    (value,) = ClassificationTask(["stars"], "none").values(logits([3.25]))
    assert value == Classification("stars", 3.25, {"stars": 3.25})


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_extreme_logits_neither_overflow_nor_underflow(activation: str) -> None:
    task = ClassificationTask(["no", "yes"], activation)  # type: ignore[arg-type]
    (value,) = task.values(logits([-3e38, 3e38]))
    assert value == Classification("yes", 1.0, {"no": 0.0, "yes": 1.0})


def test_scores_have_six_digits_in_json() -> None:
    (value,) = ClassificationTask(["no", "yes"]).values(logits([0.1, 0.7]))
    assert json.loads(msgspec.json.encode(value))["scores"] == {"no": 0.354344, "yes": 0.645656}


def test_each_row_keeps_its_place_and_its_own_scores() -> None:
    values = ClassificationTask(["a", "b", "c"]).values(logits([9, 0, 0], [0, 9, 0], [0, 0, 9]))
    assert [value.label for value in values if isinstance(value, Classification)] == ["a", "b", "c"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_a_number_is_an_error_of_its_own(bad: float) -> None:
    task = ClassificationTask(["no", "yes"])
    first, broken, last = task.values(logits([0.0, 1.0], [bad, 0.0], [2.0, 0.0]))
    assert isinstance(broken, RecordError)
    assert broken.reason == "not_a_number"
    assert [first, last] == task.values(logits([0.0, 1.0], [2.0, 0.0]))


def test_no_rows_are_no_values() -> None:
    assert ClassificationTask(["no", "yes"]).values(np.empty((0, 2), dtype=np.float32)) == []


@pytest.mark.parametrize(
    ("problem_type", "labels", "activation"),
    [
        (None, {0: "no", 1: "yes"}, "softmax"),
        ("single_label_classification", {0: "no", 1: "yes"}, "softmax"),
        ("multi_label_classification", {0: "no", 1: "yes"}, "sigmoid"),
        (None, {0: "spam"}, "sigmoid"),
        ("regression", {0: "stars"}, "none"),
    ],
)
def test_the_config_says_labels_and_activation(
    problem_type: str | None, labels: dict[int, str], activation: str
) -> None:
    task = ClassificationTask.from_config(SimpleNamespace(problem_type=problem_type, id2label=labels))
    assert task.labels == tuple(labels.values())
    assert task.activation == activation


def test_labels_come_in_the_order_of_their_numbers() -> None:
    shuffled = {number: f"l{number}" for number in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    task = ClassificationTask.from_config(SimpleNamespace(problem_type=None, id2label=shuffled))
    assert task.labels == tuple(f"l{number}" for number in range(11))


def test_an_output_without_a_label_is_refused() -> None:
    """The pipeline fails at the first text that gets it."""
    with pytest.raises(ConfigurationError, match=r"numbered \[0, 2\], .* without a gap: correct id2label"):
        ClassificationTask.from_config(SimpleNamespace(problem_type=None, id2label={0: "no", 2: "yes"}))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", Classification("no", 0.6, {"no": 0.6, "yes": 0.4})),
        ("max", Classification("yes", 0.8, {"no": 0.7, "yes": 0.8})),
    ],
)
def test_rows_of_one_text_become_one_value(pooling: str, expected: Classification) -> None:
    task = ClassificationTask(["no", "yes"], pooling=pooling)  # type: ignore[arg-type]
    rows = np.log(np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])).astype(np.float32)
    shares = Shares(np.array([0, 2]), np.array([8.0, 2.0, 1.0]))
    first, second = task.values(rows, shares)
    assert first == expected
    assert second == Classification("no", 0.5, {"no": 0.5, "yes": 0.5})


def test_labels_without_names_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ClassificationTask.from_config(SimpleNamespace(problem_type=None, id2label={0: "no", 1: "yes"}))
        assert caplog.text == ""
        ClassificationTask.from_config(
            SimpleNamespace(problem_type=None, id2label={0: "LABEL_0", 1: "LABEL_1"})
        )
    assert "does not name its labels; results say LABEL_0, LABEL_1" in caplog.text


@pytest.mark.parametrize("labels", [[], ["good", "bad", "good"]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be distinct, and at least one: correct id2label"):
        ClassificationTask(labels)


def test_a_batch_costs_next_to_nothing() -> None:
    """Measured: 64 rows in under 100 us. The bound is for a busy machine, not a loop over numpy."""
    task = ClassificationTask(["negative", "positive"])
    rows = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    best = math.inf
    for _ in range(200):
        started = time.perf_counter()
        task.values(rows)
        best = min(best, time.perf_counter() - started)
    assert best < 300e-6
