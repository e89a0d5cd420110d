"""How many floating-point operations a text takes, and how many a second the device promises."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from streamer.backends.torch.loading import quiet

log = logging.getLogger(__name__)

# Lengths, in tokens, at which a text is counted: three make a parabola, and the fourth checks it.
LENGTHS = (16, 32, 64, 128)

# Dense operations a second in bf16 (before Ampere fp16) by NVIDIA's data sheets; by what the name holds.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
}


def speed(
    model_class: Any, config: Any, longest: int, device: torch.device, precision: str
) -> dict[str, Any]:
    """What is known of `flops_of_text`, `peak_flops` and `device_uuid`."""
    found = {
        "flops_of_text": flops_of_text(model_class, config, longest),
        "peak_flops": peak_flops(device, precision),
        "device_uuid": uuid_of(device),
    }
    return {name: value for name, value in found.items() if value is not None}


@torch.inference_mode()
def flops_of_text(model_class: Any, config: Any, longest: int) -> tuple[float, float, float] | None:
    """c, a, b: a text of n tokens takes c + a * n + b * n * n operations. None where that is not so.

    Counted on a twin of the model that has shapes and no numbers, with one text of each length. It is not so
    where attention is local, and not known where a model looks at its numbers.
    """
    if longest < LENGTHS[-1]:
        return None
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"
    try:
        with torch.device("meta"), quiet():
            twin = model_class(config).eval()
            totals = [_flops(twin, length) for length in LENGTHS]
    except Exception as error:  # as many kinds as there are models
        log.info("the operations of a text are not known: %s", type(error).__name__)
        return None
    quadratic, linear, constant = map(float, np.polyfit(LENGTHS[:3], totals[:3], 2))
    expected = constant + linear * LENGTHS[3] + quadratic * LENGTHS[3] ** 2
    return (constant, linear, quadratic) if abs(totals[3] - expected) < 0.01 * expected else None


def _flops(model: Any, length: int) -> int:
    ids = torch.ones((1, length), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What the data sheet promises in half precision; None for what is not listed."""
    if device.type != "cuda" or precision not in ("bf16", "fp16"):
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def uuid_of(device: torch.device) -> str | None:
    """By which NVIDIA's driver knows a device, whatever CUDA_VISIBLE_DEVICES makes of its number."""
    if device.type != "cuda":
        return None
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
