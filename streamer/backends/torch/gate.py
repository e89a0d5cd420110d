"""The accuracy gate: what rounding does to a model, measured at load on texts, before a record is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.forward import Run
from streamer.errors import ConfigurationError, StartupError
from streamer.records import Classification
from streamer.tasks.classification import ClassificationTask

SAMPLE = Path(__file__).with_name("sample.txt")

# Texts a batch. Their lengths differ, as they would in a window.
BATCH = 16

Answers = list[Classification | Exception]


class DriftError(StartupError):
    """Rounding changes what the model says."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far two sets of answers are apart: the share of labels that differ, and the mean of the change
    in scores."""

    labels: float
    scores: float

    def __str__(self) -> str:
        return f"{self.labels:.1%} of the labels and the scores by {self.scores:.4f} on average"


class Gate:
    """Asks a model the same texts before and after it is rounded."""

    def __init__(self, rows: Sequence[Tokens], task: ClassificationTask, limit: float) -> None:
        """`limit`: of labels, as a share, and of scores, on average, that may change.

        Raises ConfigurationError when there is nothing to ask.
        """
        if not rows:
            raise ConfigurationError(
                "model.sample has no text that the model takes: all are longer than model.max_length, and "
                "model.long_texts has those be dead letters. Give it shorter ones"
            )
        self.limit = limit
        self.rows = rows
        self._task = task

    @torch.inference_mode()
    def ask(self, forward: Run) -> Answers:
        """The answers to the sample."""
        answers: Answers = []
        for start in range(0, len(self.rows), BATCH):
            logits = forward(self.rows[start : start + BATCH])
            answers += self._task.values(logits.float().cpu().numpy())
        return answers

    def check(self, forward: Run, expected: Answers, what: str) -> Drift:
        """Raises DriftError when `what`, said in the configuration's words, changes the answers too far."""
        found = measure_drift(self.ask(forward), expected)
        if not max(found.labels, found.scores) <= self.limit:
            raise DriftError(
                f"{what} changes {found}, of {len(expected)} texts; model.max_drift allows {self.limit:g}: "
                "set precision: fp32 and quantize: none, or give model.sample a file of your own texts if "
                "these are not what the model was made for"
            )
        return found


def measure_drift(found: Answers, expected: Answers) -> Drift:
    """An answer that is no number on one side only counts as a changed label, and 1 of score."""
    labels, scores = 0, 0.0
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Classification) and isinstance(other, Classification):
            labels += one.label != other.label
            scores += float(np.mean([abs(one.scores[name] - other.scores[name]) for name in one.scores]))
        elif isinstance(one, Classification) or isinstance(other, Classification):
            labels, scores = labels + 1, scores + 1.0
    return Drift(labels / len(expected), scores / len(expected))


def read_sample(path: str | None) -> list[str]:
    """The texts of a file, one a line; None: those that come with streamer.

    Raises ConfigurationError when it cannot be read or holds none.
    """
    file = SAMPLE if path is None else Path(path).expanduser()
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"model.sample is '{path}', which cannot be read: {error}") from error
    texts = [text for line in lines if (text := line.strip())]
    if not texts:
        raise ConfigurationError(f"model.sample is '{path}', which holds no text: write one a line")
    return texts
