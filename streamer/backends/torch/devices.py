"""Where a model runs, and what the device's errors mean."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from streamer.errors import ConfigurationError, DeviceError, OutOfMemory, StartupError, StreamerError

Rows = Sequence[Any]


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


def translate(error: Exception, batch: str) -> StreamerError | None:
    """What an error of torch means to the engine: OutOfMemory, DeviceError, or None when it is neither.

    `batch` says in words what was run.
    """
    message = str(error)
    if (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in message
        or "Failed to allocate" in message  # OpenVINO
        or "out of memory" in message
        or "CUBLAS_STATUS_ALLOC_FAILED" in message
    ):
        return OutOfMemory(batch)
    if isinstance(error, torch.AcceleratorError) or message.startswith(("CUDA error", "cuDNN error")):
        # The first line names the error, the rest is advice on debugging. No later call can succeed.
        return DeviceError(f"{message.partition(chr(10))[0]}, at {batch}")
    return None


class Lanes:
    """Where batches run: on CUDA each thread has a stream of its own, on the CPU there is nothing to have.

    While the device computes one thread's batch, another thread packs the next one and copies it over.
    """

    def __init__(self, device: torch.device) -> None:
        """What the current stream still does, the copy of a model say, is waited for."""
        self._device = device
        self._own = threading.local()
        # On the CPU a second thread would only take cores from the first one's operators.
        self.threads = 1
        if device.type == "cuda":
            self.threads = 2
            torch.cuda.synchronize(device)

    def run(self, forward: Callable[[Rows], Tensor], rows: Rows) -> Tensor:
        """The logits of a batch in float32, on the host. The one wait is for their arrival."""
        if self._device.type != "cuda":
            return forward(rows).float()
        with torch.cuda.stream(self._stream()):
            found = forward(rows).float()
            logits = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            logits.copy_(found, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # sleeps, does not spin
            arrived.record()
            arrived.synchronize()
        return logits

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._own.stream
        return stream


def memory_taken(device: torch.device, run: Callable[[], object]) -> int | None:
    """The bytes that `run` took at its peak beyond what was held before. None on a CPU: it does not say."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def memory_free(device: torch.device) -> int:
    """The bytes that are left for batches on a CUDA device: its own, and what PyTorch keeps for later."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def release_memory(device: torch.device) -> None:
    """Give the cached memory back, so that a smaller batch finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
