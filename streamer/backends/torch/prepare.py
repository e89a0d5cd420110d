"""From a model as it was loaded to the fastest way through it that says the same."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from streamer.backends.torch.forward import Forward, Packed
from streamer.backends.torch.functional import Functional, Names, drop_layers, find_names
from streamer.backends.torch.gate import Gate
from streamer.backends.torch.linear import Blocked, Dense, Int8
from streamer.backends.torch.loading import Encoder
from streamer.backends.torch.precision import Numbers, set_precision
from streamer.backends.torch.quantization import quantize
from streamer.backends.torch.race import fastest
from streamer.backends.torch.selftest import HALF_TOLERANCE, TOLERANCE, choose_forward, confirm, drift_of
from streamer.errors import StartupError

log = logging.getLogger(__name__)


def prepare(model: Any, encoder: Encoder, device: torch.device, numbers: Numbers, gate: Gate) -> Forward:
    """Test, convert, place, quantize or race, and test again.

    `model` is in float32 on the CPU, and is changed. Raises StartupError when the device cannot hold it, or
    when rounding changes its answers further than `gate` allows.
    """
    forward = choose_forward(model, encoder)
    names = _names(model, encoder, forward) if numbers.precision != "amp" else None
    expected = [] if numbers.exact else gate.ask(forward)
    set_precision(model, numbers.precision, device)
    try:
        model.to(device)
    except (RuntimeError, MemoryError) as error:
        raise StartupError(f"the model cannot be put on {device}: {_first_line(error)}") from error
    if device.type == "cuda" and isinstance(forward, Packed):
        forward = confirm(forward, model, encoder, numbers.precision)
    if numbers.quantize != "none":
        forward = _quantized(model, forward, names, numbers.quantize)
    elif names and isinstance(forward, Packed):
        forward = _raced(model, encoder, forward, names, numbers.precision)
    if not numbers.exact:
        drift = gate.check(forward, expected, str(numbers))
        log.info("%s changes %s, of %d texts", numbers, drift, len(expected))
    if forward.path == "functional" and names:
        drop_layers(model.base_model, names)
    return forward


def _names(model: Any, encoder: Encoder, forward: Forward) -> Names | None:
    """The names of the layers of a model that our own code computes exactly."""
    names = find_names(model.base_model) if isinstance(forward, Packed) else None
    if not names or not isinstance(forward, Packed):
        return None
    own = forward.through(Functional(model.base_model, names, _as_trained))
    return names if drift_of(own, forward, model, encoder) <= TOLERANCE else None


def _raced(model: Any, encoder: Encoder, generic: Packed, names: Names, precision: str) -> Forward:
    """Our own code for the layers where it is faster, which it is nearly always."""
    make = Blocked if generic.device.type == "cpu" else _as_trained
    try:
        own = generic.through(Functional(model.base_model, names, make))
        drift = drift_of(own, generic, model, encoder)
    except (RuntimeError, AttributeError) as error:  # an operator that this PyTorch or processor lacks
        log.info("transformers' code runs the layers: %s", _first_line(error))
        return generic
    if drift > (TOLERANCE if precision == "fp32" else HALF_TOLERANCE):
        log.info("transformers' code runs the layers: ours differs by %.1e", drift)
        return generic
    vocabulary = model.get_input_embeddings().num_embeddings
    forward, times = fastest([generic, own], encoder.max_length, vocabulary)
    log.info("%s code runs the layers, %.2f times as fast as transformers'", forward.path, times)
    return forward


def _quantized(model: Any, forward: Forward, names: Names | None, quantization: str) -> Forward:
    layers: nn.Module = model.base_model
    try:
        if names and isinstance(forward, Packed):
            layers = Functional(model.base_model, names, Int8 if quantization == "int8" else _as_trained)
            forward = forward.through(layers)
        quantize(layers, quantization)
    except (RuntimeError, AttributeError) as error:
        reason = _first_line(error)
        raise StartupError(f"model.quantize is {quantization}, which fails here: {reason}") from error
    return forward


def _as_trained(dense: Dense) -> Dense:
    return dense


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
