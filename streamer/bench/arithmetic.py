"""How much a model computes for a token, and how fast the device multiplies at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

# Encoders with an attention of four projections and a feed-forward part of two: the formula is theirs.
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "ernie")

# Dense peak rates of the makers' data sheets, in TFLOP/s, for bf16 with float32 sums.
PEAKS = {"H200": 989.0, "H100 80GB HBM3": 989.0, "A100": 312.0, "L4": 121.0}

_SECONDS, _REPEATS = 0.1, 5


def operations(folder: Path, tokens: int, squares: int) -> float | None:
    """FLOPs of the encoder for texts with so many tokens and squares of tokens; None: of another family.

    A layer multiplies a token by 4 matrices of hidden * hidden and 2 of hidden * intermediate, and its
    attention by all L tokens of the text twice: 2 * (4 h^2 + 2 h m) + 4 h L, for each of the layers. For
    BERT-base: 169.9M + 36,864 L.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config.get("model_type") not in FAMILIES:
        return None
    hidden = config.get("hidden_size") or config["dim"]
    layers = config.get("num_hidden_layers") or config["n_layers"]
    inner = config.get("intermediate_size") or config["hidden_dim"]
    return float(layers * (tokens * 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * squares))


def known_peak(device: str) -> float | None:
    """FLOP/s of a device by its name, as PyTorch gives it."""
    return next((peak * 1e12 for name, peak in PEAKS.items() if name in device), None)


def measured_peak(device: str, precision: str) -> float:
    """FLOP/s of a large multiplication of square matrices, the median of some."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = 1024 if device == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    wait: Callable[[], Any] = torch.cuda.synchronize if left.is_cuda else (lambda: None)
    rates = []
    with torch.inference_mode():
        torch.mm(left, right)
        for _ in range(_REPEATS):
            wait()
            count, started = 0, time.perf_counter()
            while (spent := time.perf_counter() - started) < _SECONDS:
                torch.mm(left, right)
                wait()
                count += 1
            rates.append(count * 2 * size**3 / spent)
    return median(rates)
