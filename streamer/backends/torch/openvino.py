"""The layers in OpenVINO, Intel's runtime for CPUs; everything else of the model stays in PyTorch.

OpenVINO gets batches of like length with padding: it has no attention for packed rows. Its int8 is static:
NNCF runs the model over texts at load and fixes the range of every input of a product, where PyTorch's int8
finds it anew in each batch.
"""

from __future__ import annotations

import copy
import gc
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.forward import Forward, Padded, Pooler
from streamer.backends.torch.gate import Gate
from streamer.backends.torch.loading import Encoder, quiet
from streamer.backends.torch.precision import Numbers
from streamer.backends.torch.selftest import TOLERANCE, drift_of
from streamer.errors import ConfigurationError, StartupError, StreamerError

log = logging.getLogger(__name__)

# In its words.
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# The example that the model is traced with: any texts and tokens but one, which would be taken for constants.
EXAMPLE = (2, 16)
# It compiles the products for each number of rows that it meets, 80 ms or more for a BERT-base: with
# lengths that are multiples of this it soon has met them all.
MULTIPLE = 8
# Texts that NNCF sees, at most: as many as it takes by itself. It sees every other one of the gate's, which
# judges by all of them.
CALIBRATION = 300


class States(nn.Module):
    """What is converted: a base model as a function of ids and mask, int64 [texts, tokens] each."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return self.base(input_ids=ids, attention_mask=mask).last_hidden_state


class Layers(nn.Module):
    """In the place of a base model: its last states are OpenVINO's, its pooler is its own. For one thread."""

    def __init__(self, base: nn.Module, compiled: Any) -> None:
        super().__init__()
        self.pool = Pooler(base)
        self._request = compiled.create_infer_request()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """Raises MemoryError when there was none for the batch."""
        found = self._request.infer([input_ids.numpy(), attention_mask.numpy()], share_outputs=True)[0]
        if found.shape[:2] != input_ids.shape:
            # With one thread, OpenVINO says nothing of it, and the states are those of an earlier batch.
            raise MemoryError("OpenVINO computed nothing")
        # A copy: the next batch is computed where this one was.
        return self.pool(inputs_embeds=torch.from_numpy(found.astype(np.float32, copy=True)))


def check_openvino(numbers: Numbers, device: torch.device) -> None:
    """Raises ConfigurationError for what OpenVINO is not used for, StartupError where it is missing."""
    if device.type != "cpu":
        raise ConfigurationError(
            f"model.runtime is openvino, which is for the CPU: on {device}, take torch; or set model.device"
        )
    if numbers.precision not in PRECISIONS:
        known = " or ".join(PRECISIONS)
        raise ConfigurationError(
            f"model.runtime is openvino, which computes in {known}, not {numbers.precision}: set precision"
        )
    _import(*(["openvino", "nncf"] if numbers.quantize == "int8" else ["openvino"]))


def prepare(model: Any, encoder: Encoder, device: torch.device, numbers: Numbers, gate: Gate) -> Forward:
    """Convert the layers, test them, and where asked for round them, and test again.

    `model` is in float32 on the CPU, and loses its layers. Raises StartupError when OpenVINO cannot take
    them or computes something else, or when rounding changes the answers further than `gate` allows.
    """
    try:
        with quiet(), _silent():
            forward = _prepared(model, encoder, numbers, gate)
    except StreamerError:
        raise
    except (OSError, MemoryError) as error:
        raise StartupError(
            f"model.runtime is openvino, which fails here ({error or type(error).__name__}): to convert a "
            "model takes a folder for temporary files and memory for several copies; set torch"
        ) from error
    except Exception as error:  # as many kinds as there are models
        raise StartupError(
            f"model.runtime is openvino, which cannot take {type(model).__name__} ({_last_line(error)}): "
            "set torch"
        ) from error
    model._modules = forward.model._modules
    gc.collect()  # the layers in float32 hang in circles of references
    return forward


def _prepared(model: Any, encoder: Encoder, numbers: Numbers, gate: Gate) -> Padded:
    def through(compiled: Any) -> Padded:
        own = copy.copy(model)
        own._modules = {**model._modules, model.base_model_prefix: Layers(model.base_model, compiled)}
        return Padded(own, encoder, path="openvino", multiple=MULTIPLE)

    def alone(rows: Sequence[Tokens]) -> Tensor:
        return torch.cat([plain([row]) for row in rows])

    plain = Padded(model, encoder)
    converted = _convert(model.base_model)
    forward = through(_compile(converted, "fp32"))
    # Texts alone: some families let what they are padded with into their sums.
    if (drift := drift_of(forward, alone, model, encoder)) > TOLERANCE:
        raise StartupError(
            f"model.runtime is openvino, which computes other logits for {type(model).__name__}: they "
            f"differ by {drift:.1e}; set torch"
        )
    if not numbers.exact:
        if numbers.quantize == "int8":
            converted = _calibrate(converted, gate.rows[: 2 * CALIBRATION : 2])
        forward = through(_compile(converted, numbers.precision))
        found = gate.check(forward, gate.ask(alone), f"model.runtime: openvino, {numbers}")
        log.info("openvino, %s changes %s", numbers, found)
    return forward


def _convert(base: nn.Module) -> Any:
    openvino = _import("openvino")[0]
    example = (torch.ones(EXAMPLE, dtype=torch.int64), torch.ones(EXAMPLE, dtype=torch.int64))
    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's and OpenVINO's own code
        return openvino.convert_model(torch.export.export(States(base), example, dynamic_shapes=(free, free)))


def _calibrate(converted: Any, rows: Sequence[Tokens]) -> Any:
    """int8 by NNCF, with the ranges that the texts give: weights by output, inputs by layer."""
    (nncf,) = _import("nncf")

    samples = [[row[None].astype(np.int64), np.ones((1, len(row)), np.int64)] for row in rows]
    return nncf.quantize(
        converted, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
    )


def _compile(converted: Any, precision: str) -> Any:
    (openvino,) = _import("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        # Its threads share the cores with PyTorch's, the engine's and Kafka's.
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(converted, "CPU", settings)


def _import(*names: str) -> list[Any]:
    """The packages without their telemetry: unasked, it tells their makers of each import and conversion.

    And without NNCF's logging, which goes to standard output and makes every later logger one of its kind.
    What is an error there is raised too.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # an import of it fails
    loggers = logging.getLoggerClass()
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise StartupError(
            f"model.runtime: openvino needs openvino and nncf ({error}); pip install 'streamer[openvino]'"
        ) from error
    finally:
        logging.setLoggerClass(loggers)
        logging.getLogger("nncf").setLevel(logging.CRITICAL)


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars of NNCF on standard output, where results may go, and all of streamer's own log lines.

    While OpenVINO converts, the root logger says nothing but errors; if it fails, that stays.
    """
    import rich

    console, root = rich.get_console(), logging.getLogger()
    before = console.quiet, root.level, list(root.filters)
    console.quiet = True
    try:
        yield
    finally:
        console.quiet, level, root.filters = before
        root.setLevel(level)


def _last_line(error: Exception) -> str:
    """Where OpenVINO says what it could not convert."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
