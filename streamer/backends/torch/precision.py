"""With what numbers a model computes: its encoder in one of four precisions, its head in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from streamer.errors import ConfigurationError

PRECISIONS = ("auto", "bf16", "fp16", "fp32", "amp")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "amp": torch.float32}


@dataclass(frozen=True, slots=True)
class Numbers:
    """`precision`: bf16, fp16, fp32 or amp. `quantize`: none, int8 or fp8."""

    precision: str
    quantize: str = "none"

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return self == Numbers("fp32")

    def __str__(self) -> str:
        return f"model.precision: {self.precision}, model.quantize: {self.quantize}"


def choose_precision(name: str, device: torch.device) -> str:
    """`auto`: bf16 where the device has units that multiply it, fp32 anywhere else.

    That is CUDA since Ampere, and CPUs with AMX. `amp` keeps the weights in float32 and lets PyTorch choose
    for each operation (autocast): for models whose activations need the range, at the price of a cast of
    every weight in every batch. Raises ConfigurationError for another name.
    """
    if name not in PRECISIONS:
        raise ConfigurationError(f"model.precision is '{name}': it must be one of {', '.join(PRECISIONS)}")
    if name == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    return name


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def set_precision(model: Any, precision: str, device: torch.device) -> None:
    """Convert the encoder, and keep pooler and head in float32: it costs nothing, and rounding shows there.

    `device` is where the model is going to be. A model without a `base_model` of its own is converted whole.
    """
    if precision == "fp32":
        return
    base = model.base_model
    whole = not isinstance(base, torch.nn.Module) or base is model
    if precision == "amp":
        _autocast(model if whole else base, device, enabled=True)
    if whole:
        model.to(DTYPES[precision])
        return
    head = [part for part in model.children() if part is not base]
    if isinstance(pooler := getattr(base, "pooler", None), torch.nn.Module):
        head.append(pooler)
    exact = {id(parameter) for part in head for parameter in part.parameters()}
    for parameter in base.parameters():
        # Not buffers: rounded, the frequencies of rotary positions are those of other positions.
        if parameter.is_floating_point() and id(parameter) not in exact:
            parameter.data = parameter.data.to(DTYPES[precision])
    for part in head:
        part.register_forward_pre_hook(_in_float32, with_kwargs=True)
        if precision == "amp":
            _autocast(part, device, enabled=False)


def _autocast(module: Any, device: torch.device, *, enabled: bool) -> None:
    """In bf16 where the device multiplies it, else in fp16 (CUDA before Ampere)."""
    half = torch.float16 if device.type == "cuda" and not _multiplies_bf16(device) else torch.bfloat16
    # Its cache of weights that were cast never hits in inference mode.
    cast = torch.autocast(device.type, dtype=half, enabled=enabled, cache_enabled=False)
    module.forward = cast(module.forward)


def _in_float32(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def widen(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(widen, args)), {key: widen(value) for key, value in kwargs.items()}
