"""From the logits of a sequence classifier to labels and scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigurationError, RecordError
from streamer.records import Classification

log = logging.getLogger(__name__)

Activation = Literal["softmax", "sigmoid", "none"]

# Digits kept of a score: below what a model knows, above what two machines agree on.
DIGITS = 6


class ClassificationTask:
    """One text, one label: the one with the highest score.

    The activation follows the model's config, as the `text-classification` pipeline of transformers does it:

    - several labels of which one is true: softmax, the scores add up to 1;
    - `problem_type: multi_label_classification`: sigmoid, each score stands for itself;
    - a head with a single output: sigmoid, so the only label comes with its own probability;
    - `problem_type: regression`: none, the score is the value that the model predicts.
    """

    name = "classification"
    model_class = "AutoModelForSequenceClassification"

    def __init__(self, labels: Sequence[str], activation: Activation = "softmax") -> None:
        """`labels` in the order of the logits. Raises ConfigurationError when there is none, or one twice."""
        if not labels or len(set(labels)) < len(labels):
            raise ConfigurationError(
                f"the model's labels {list(labels)} must be distinct, and at least one: correct id2label in "
                "its config.json"
            )
        self.labels = tuple(labels)
        self.activation = activation

    @classmethod
    def from_config(cls, config: Any) -> ClassificationTask:
        """The task of a transformers config: labels from `id2label`, activation from `problem_type`."""
        labels = [str(config.id2label[number]) for number in sorted(config.id2label)]
        if all(label == f"LABEL_{number}" for number, label in enumerate(labels)):
            log.warning("the model does not name its labels; results say %s", ", ".join(labels))
        if config.problem_type == "regression":
            return cls(labels, "none")
        if config.problem_type == "multi_label_classification" or len(labels) == 1:
            return cls(labels, "sigmoid")
        return cls(labels)

    def values(self, logits: NDArray[np.float32]) -> list[Classification | Exception]:
        """A classification for each row of `logits` [texts, labels], its scores rounded to 6 digits.

        A row with a NaN or an infinity gets a RecordError: its neighbours are sound.
        """
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        if finite.all():
            return [*self._classify(logits)]
        sound = iter(self._classify(logits[finite]))
        return [
            next(sound) if good else RecordError("not_a_number", "the model's output is not a number")
            for good in finite.tolist()
        ]

    def _classify(self, logits: NDArray[np.float32]) -> list[Classification]:
        # In float64: a rounded float32 does not print as 6 digits.
        rows = self._activate(logits.astype(np.float64)).round(DIGITS).tolist()
        labels = self.labels
        return [
            Classification(labels[best], row[best], dict(zip(labels, row, strict=True)))
            for best, row in zip(logits.argmax(axis=1).tolist(), rows, strict=True)
        ]

    def _activate(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.activation == "softmax":
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))
        if self.activation == "sigmoid":
            # tanh cannot overflow where exp(-x) would.
            return 0.5 * (1.0 + np.tanh(0.5 * logits))
        return logits
