"""Which of several exact ways through a model is the fastest here: measured, not known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.forward import Forward

log = logging.getLogger(__name__)

# (texts, tokens each): a text alone, and a batch of the size at which `sizing.py` begins. A quarter of that
# is no measure of it: there oneDNN multiplies some shapes at half speed.
SHAPES = ((1, 24), (48, 44))
# No turn begins after so many seconds of a shape's: a large model in float32 takes two for each.
TURNS, LIMIT = 5, 3.0
# The best of five turns is still off by some percent on a machine that does other work. Within that, the one
# that is expected to win, wins.
MARGIN = 0.05


@torch.inference_mode()
def fastest(forwards: Sequence[Forward], longest: int, vocabulary: int) -> tuple[Forward, float]:
    """The one that takes the least time, and how many times as fast as the first one it is.

    They take turns, after one untimed turn each, and the best turn of each counts: what else the machine
    does only ever adds. What is compared is the sum over the shapes, each counted by its share of the first
    one's time; the last one is taken unless another is faster by more than the noise of that (`MARGIN`).
    `longest` in tokens; `vocabulary` in words.
    """
    random = np.random.default_rng(3)
    batches = [
        [random.integers(0, vocabulary, min(tokens, longest), dtype=np.int32) for _ in range(texts)]
        for texts, tokens in SHAPES
    ]
    shares = []
    for batch in batches:
        _turn(forwards, batch)
        turns = [_turn(forwards, batch)]
        while len(turns) < TURNS and sum(map(sum, turns)) < LIMIT:
            turns.append(_turn(forwards, batch))
        seconds = [min(times) for times in zip(*turns, strict=True)]
        shares.append([taken / seconds[0] for taken in seconds])
    means = [sum(each) / len(batches) for each in zip(*shares, strict=True)]
    best = means.index(min(means))
    if means[-1] <= means[best] * (1 + MARGIN):
        best = len(means) - 1
    return forwards[best], 1 / means[best]


def _turn(forwards: Sequence[Forward], batch: Sequence[Tokens]) -> list[float]:
    return [_seconds(forward, batch) for forward in forwards]


def _seconds(forward: Forward, rows: Sequence[Tokens]) -> float:
    started = perf_counter()
    forward(rows).cpu()  # waits for the device
    return perf_counter() - started
