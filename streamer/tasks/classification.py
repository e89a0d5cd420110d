"""From the logits of a sequence classifier to labels and scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigurationError, RecordError
from streamer.records import Classification

log = logging.getLogger(__name__)

Activation = Literal["softmax", "sigmoid", "none"]
Pooling = Literal["mean", "max"]

# Digits kept of a score: below what a model knows, above what two machines agree on.
DIGITS = 6


class Shares(NamedTuple):
    """Which rows of a batch are windows of one text: text n has those from `starts[n]` to the next start.

    `starts`, integers [texts]; `weights`, float64 [rows], how much of its text a row speaks for.
    """

    starts: NDArray[np.int64]
    weights: NDArray[np.float64]


class ClassificationTask:
    """One text, one label: the one with the highest score.

    The activation follows the model's config, as the `text-classification` pipeline of transformers does it:

    - several labels of which one is true: softmax, the scores add up to 1;
    - `problem_type: multi_label_classification`: sigmoid, each score stands for itself;
    - a head with a single output: sigmoid, so the only label comes with its own probability;
    - `problem_type: regression`: none, the score is the value that the model predicts.

    Of a text in several rows each score is the mean over its rows, by their weights, or the highest of them.
    """

    name = "classification"
    model_class = "AutoModelForSequenceClassification"

    def __init__(
        self, labels: Sequence[str], activation: Activation = "softmax", pooling: Pooling = "mean"
    ) -> None:
        """`labels` in the order of the logits. Raises ConfigurationError when there is none, or one twice."""
        if not labels or len(set(labels)) < len(labels):
            raise ConfigurationError(
                f"the model's labels {list(labels)} must be distinct, and at least one: correct id2label in "
                "its config.json"
            )
        self.labels = tuple(labels)
        self.activation = activation
        self.pooling = pooling

    @classmethod
    def from_config(cls, config: Any, pooling: Pooling = "mean") -> ClassificationTask:
        """The task of a transformers config: labels from `id2label`, activation from `problem_type`.

        Raises ConfigurationError when an output has no label.
        """
        numbers = sorted(config.id2label)
        if numbers != list(range(len(numbers))):
            raise ConfigurationError(
                f"the model's labels are numbered {numbers}, and its outputs from 0 without a gap: correct "
                "id2label in its config.json"
            )
        labels = [str(config.id2label[number]) for number in numbers]
        if all(label == f"LABEL_{number}" for number, label in enumerate(labels)):
            log.warning("the model does not name its labels; results say %s", ", ".join(labels))
        if config.problem_type == "regression":
            return cls(labels, "none", pooling)
        if config.problem_type == "multi_label_classification" or len(labels) == 1:
            return cls(labels, "sigmoid", pooling)
        return cls(labels, pooling=pooling)

    def values(
        self, logits: NDArray[np.float32], shares: Shares | None = None
    ) -> list[Classification | Exception]:
        """A classification for each text of `logits` [rows, labels], its scores rounded to 6 digits.

        Without `shares` a row is a text. One with a NaN or an infinity gets a RecordError: its neighbours are
        sound.
        """
        # In float64: a rounded float32 does not print as 6 digits.
        exact = logits.astype(np.float64)
        exact[~np.isfinite(exact).all(axis=1)] = np.nan
        scores = self._activate(exact)
        if shares is not None:
            scores = exact = self._pool(scores, shares)
        # By the logits, where there is one row a text: two scores may round to the same 1.0.
        best = exact.argmax(axis=1).tolist()
        broken = set(np.flatnonzero(np.isnan(scores).any(axis=1)).tolist())
        labels = self.labels
        return [
            RecordError("not_a_number", "the model's output is not a number")
            if number in broken
            else Classification(labels[best[number]], row[best[number]], dict(zip(labels, row, strict=True)))
            for number, row in enumerate(scores.round(DIGITS).tolist())
        ]

    def _pool(self, scores: NDArray[np.float64], shares: Shares) -> NDArray[np.float64]:
        if self.pooling == "max":
            return np.maximum.reduceat(scores, shares.starts)
        weights = shares.weights[:, None]
        sums = np.add.reduceat(scores * weights, shares.starts)
        return np.asarray(sums / np.add.reduceat(weights, shares.starts))

    def _activate(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.activation == "softmax":
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))
        if self.activation == "sigmoid":
            # tanh cannot overflow where exp(-x) would.
            return 0.5 * (1.0 + np.tanh(0.5 * logits))
        return logits
