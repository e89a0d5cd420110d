"""What computes: a model of our own on a device, a remote API, or a stand-in. See `protocols.Backend`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def for_people(described: Mapping[str, Any]) -> dict[str, Any]:
    """What a model says of itself, without the coefficients that only the metrics reckon with."""
    return {name: value for name, value in described.items() if name != "flops_of_text"}


def ready(*, loading: float, warming: float, described: Mapping[str, Any]) -> None:
    """Log the model and how many seconds it took, from before its libraries were imported."""
    said = "model ready after %.1f s: %.1f s to load it, %.1f s to warm it up"
    log.info(said, loading + warming, loading, warming, extra={"model": for_people(described)})
