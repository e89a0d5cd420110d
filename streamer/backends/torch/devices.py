"""Where a model runs, with what numbers, and what the device's errors mean."""

from __future__ import annotations

import re
from typing import Any

import torch

from streamer.errors import ConfigurationError, DeviceError, OutOfMemory, StartupError, StreamerError

PRECISIONS = ("auto", "bf16", "fp32")


def choose_device(name: str) -> torch.device:
    """`auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises ConfigurationError for another name, StartupError for a device that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigurationError(f"model.device is '{name}': it must be auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = (
            "this PyTorch is a CPU build" if torch.version.cuda is None else "PyTorch sees no CUDA device"
        )
        raise StartupError(
            f"model.device is '{name}', but {reason}: see nvidia-smi, or set it to auto or cpu"
        )
    device = torch.device(name)
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise StartupError(f"model.device is '{name}', but the last of {count} devices is cuda:{count - 1}")
    return torch.device("cuda", device.index or 0)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where the device has units that multiply it, fp32 anywhere else.

    That is CUDA since Ampere, and CPUs with AMX, where the shipped model was twice as fast in bf16 and one
    label of 9,221 differed (its score was 0.5003 in both). Scores differ by less than 0.01: ask for fp32
    where that matters. Raises ConfigurationError for another name.
    """
    if name not in PRECISIONS:
        raise ConfigurationError(f"model.precision is '{name}': it must be one of {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.bfloat16 if _multiplies_bf16(device) else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def set_precision(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Convert the encoder, and keep pooler and head in float32: it costs nothing, and rounding shows there.

    A model without a `base_model` of its own is converted whole.
    """
    if dtype == torch.float32:
        return
    base = model.base_model
    if not isinstance(base, torch.nn.Module) or base is model:
        model.to(dtype)
        return
    head = [part for part in model.children() if part is not base]
    if isinstance(pooler := getattr(base, "pooler", None), torch.nn.Module):
        head.append(pooler)
    exact = {id(parameter) for part in head for parameter in part.parameters()}
    for parameter in base.parameters():
        # Not buffers: rounded, the frequencies of rotary positions are those of other positions.
        if parameter.is_floating_point() and id(parameter) not in exact:
            parameter.data = parameter.data.to(dtype)
    for part in head:
        part.register_forward_pre_hook(_in_float32, with_kwargs=True)


def _in_float32(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def widen(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(widen, args)), {key: widen(value) for key, value in kwargs.items()}


def translate(error: Exception, batch: str) -> StreamerError | None:
    """What an error of torch means to the engine: OutOfMemory, DeviceError, or None when it is neither.

    `batch` says in words what was run.
    """
    message = str(error)
    if (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in message
        or "out of memory" in message
        or "CUBLAS_STATUS_ALLOC_FAILED" in message
    ):
        return OutOfMemory(batch)
    if isinstance(error, torch.AcceleratorError) or message.startswith(("CUDA error", "cuDNN error")):
        # The first line names the error, the rest is advice on debugging. No later call can succeed.
        return DeviceError(f"{message.partition(chr(10))[0]}, at {batch}")
    return None


def release_memory(device: torch.device) -> None:
    """Give the cached memory back, so that a smaller batch finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
