"""Weights and inputs of the linear layers in 8 bits: int8 on the CPU, fp8 on CUDA."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from streamer.backends.torch.linear import Int8
from streamer.backends.torch.precision import Numbers
from streamer.errors import ConfigurationError, StartupError

QUANTIZATIONS = ("none", "int8", "fp8")

# fp8 products need Ada or Hopper, and rows of a multiple of 16 bytes.
FP8_CAPABILITY = (8, 9)
FP8_MULTIPLE = 16


def check_quantization(numbers: Numbers, device: torch.device) -> None:
    """Raises ConfigurationError for what cannot be, StartupError where a package or a unit is missing."""
    name, precision = numbers.quantize, numbers.precision
    if name not in QUANTIZATIONS:
        raise ConfigurationError(f"model.quantize is '{name}': it must be one of {', '.join(QUANTIZATIONS)}")
    if name == "int8":
        if device.type != "cpu":
            raise ConfigurationError(f"model.quantize is int8, which is for the CPU: on {device}, take fp8")
        if precision not in ("fp32", "bf16"):
            raise ConfigurationError(
                f"model.quantize is int8, which computes the rest in fp32 or bf16, not {precision}"
            )
        library: Any = torch.backends.mkldnn
        if not library.is_available():
            raise StartupError("model.quantize is int8, and this PyTorch was built without oneDNN: set none")
    if name == "fp8":
        _check_fp8(precision, device)


def _check_fp8(precision: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise ConfigurationError(f"model.quantize is fp8, which is for CUDA: on {device}, take int8")
    if precision != "bf16":
        raise ConfigurationError(f"model.quantize is fp8, which goes with bf16, not {precision}")
    if (found := torch.cuda.get_device_capability(device)) < FP8_CAPABILITY:
        raise StartupError(
            f"model.quantize is fp8, and {device} has compute capability {found[0]}.{found[1]}: it takes "
            f"{FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]} (Ada, Hopper) or newer; set none"
        )
    try:
        importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise StartupError(
            f"model.quantize: fp8 needs torchao ({error}); pip install 'streamer[fp8]'"
        ) from error


def quantize(layers: nn.Module, name: str) -> None:
    """Quantize the linear layers inside `layers`, in place: int8 on the CPU, fp8 on CUDA.

    Not those of a pooler: it belongs to the head.
    """
    if name == "int8":
        for part, child in layers.named_children():
            if part != "pooler":
                _replace(layers, part, child)
        return
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    quantize_(layers, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), _takes_fp8)


def _replace(parent: nn.Module, name: str, module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        setattr(parent, name, Int8(module))
    for part, child in module.named_children():
        _replace(module, part, child)


def _takes_fp8(module: nn.Module, name: str) -> bool:
    if not isinstance(module, nn.Linear) or name.startswith("pooler"):
        return False
    return all(size % FP8_MULTIPLE == 0 for size in module.weight.shape)
