"""What NVIDIA's driver says of the model's device, asked at each scrape, on the thread that serves it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from streamer.metrics import DeviceFigures, Metrics

log = logging.getLogger(__name__)


def reader(metrics: Metrics) -> Callable[[], DeviceFigures | None]:
    """Reads the device that `metrics` name, once they do; None without one, or without NVIDIA's library."""
    found: list[Any] = []  # the library and the handle, once they are there; the library alone is of no use

    def read() -> DeviceFigures | None:
        if metrics.device_uuid is None:
            return None
        if not found:
            found.extend(_open(metrics.device_uuid) or (None, None))
        library, handle = found
        return None if library is None else _read(library, handle)

    return read


def _open(uuid: str) -> tuple[Any, Any] | None:
    try:
        import pynvml
    except ImportError:
        log.info("no figures of the device: pip install nvidia-ml-py")
        return None
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        log.warning("no figures of the device: %s", error)
        return None


def _read(library: Any, handle: Any) -> DeviceFigures | None:
    try:
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        return DeviceFigures(
            utilisation=library.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            memory_used=memory.used,
            memory_total=memory.total,
            power=library.nvmlDeviceGetPowerUsage(handle) / 1000,
            temperature=library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU),
        )
    except library.NVMLError as error:  # a MIG slice tells less than this; a device may fall off the bus
        log.warning("the driver does not tell of the device: %s", error)
        return None
