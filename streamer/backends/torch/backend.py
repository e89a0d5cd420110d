"""The model: texts to tokens on the engine's thread, tokens to values on the worker's."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.backends.torch import devices, openvino
from streamer.backends.torch.attention import Tokens
from streamer.backends.torch.flops import speed
from streamer.backends.torch.forward import Forward
from streamer.backends.torch.gate import DriftError, Gate, read_sample
from streamer.backends.torch.loading import load_encoder, load_model
from streamer.backends.torch.location import Location, locate
from streamer.backends.torch.long_texts import LongTexts, spread
from streamer.backends.torch.precision import Numbers, choose_precision
from streamer.backends.torch.prepare import prepare
from streamer.backends.torch.quantization import check_quantization
from streamer.backends.torch.tokenizing import TextEncoder
from streamer.errors import ConfigurationError, OutOfMemory, RecordError, StartupError
from streamer.records import Classification, Encoding, Job
from streamer.tasks.classification import ClassificationTask

log = logging.getLogger(__name__)

RUNTIMES = {"torch": prepare, "openvino": openvino.prepare}
TASKS = {ClassificationTask.name: ClassificationTask}

# The shapes of a warm-up, (texts, share of max_length), from small to large: first calls choose kernels and
# fill the allocator's cache.
SHAPES = ((1, 0.0), (8, 0.0), (1, 1.0), (8, 0.25), (16, 1.0))


class TorchBackend:
    """A Hugging Face model with a fast tokenizer, on one device.

    `encode` and `infer` share nothing that either changes, so each may have a thread of its own.
    """

    def __init__(
        self,
        location: Location,
        model: Any,
        forward: Forward,
        texts: TextEncoder,
        task: ClassificationTask,
        *,
        facts: Mapping[str, Any],
    ) -> None:
        """`model` is on its device and in its precision already; `facts` say in which. See `load`."""
        self.name = location.name
        self.revision = location.revision
        self.device: torch.device = model.device
        self.cost = forward.cost
        self.max_length = texts.max_length
        self._model = model
        self._forward = forward
        self._texts = texts
        self._lanes = devices.Lanes(self.device)
        self.threads = self._lanes.threads
        self._task = task
        self._facts = facts
        # The tokens of a batch that the device has no memory for: see `warm_up`.
        self.does_not_fit: int | None = None

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        runtime: str = "torch",
        precision: str = "auto",
        quantize: str = "none",
        max_drift: float = 0.03,
        sample: str | None = None,
        max_length: int | None = None,
        task: str = ClassificationTask.name,
        long_texts: LongTexts = LongTexts(),  # noqa: B008 - frozen
    ) -> TorchBackend:
        """A shipped model, a folder or a model of the hub; safetensors only, and no code from the model.

        `device`: auto, cpu, cuda, cuda:N. `runtime`, of the layers: torch, openvino (CPU). `precision`: auto,
        bf16, fp16, fp32, amp. `quantize`: none, int8 (CPU), fp8 (CUDA). Rounding may change the share
        `max_drift` of the labels, and scores by as much on average, of the texts in the file `sample` (None:
        of those that come with streamer); with `auto`, a model that it would change further stays in fp32.
        `max_length` in tokens; None: 512, or what the model
        or its tokenizer allows if that is less. `long_texts`: what becomes of longer ones.

        Raises ConfigurationError for a setting that cannot be, StartupError for a model or a device that is
        not there or does not fit, DriftError for one that rounding changes too far.
        """
        if task not in TASKS:
            raise ConfigurationError(f"model.task is '{task}': it must be one of {', '.join(TASKS)}")
        where = devices.choose_device(device)
        numbers = Numbers(choose_precision(precision, where), quantize)
        check_quantization(numbers, where)
        if runtime not in RUNTIMES:
            raise ConfigurationError(f"model.runtime is '{runtime}': it must be one of {', '.join(RUNTIMES)}")
        if runtime == "openvino":
            openvino.check_openvino(numbers, where)
        sampled = read_sample(sample)
        location = locate(name, revision)
        model = load_model(location, TASKS[task].model_class)
        encoder = load_encoder(location, model, max_length)
        texts = TextEncoder(encoder, long_texts)
        scoring = TASKS[task].from_config(model.config, pooling=long_texts.pooling)
        gate = Gate(_rows(texts, sampled), scoring, max_drift)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        try:
            forward = RUNTIMES[runtime](model, encoder, where, numbers, gate)
        except DriftError as error:
            if precision != "auto" or quantize != "none":
                raise
            log.warning("precision auto takes fp32, not bf16: %s", error.detail)
            numbers = Numbers("fp32")
            traceback.clear_frames(error.__traceback__)  # they hold the rounded model
            model = load_model(location, TASKS[task].model_class)
            forward = RUNTIMES[runtime](model, encoder, where, numbers, gate)
        facts = {
            "precision": numbers.precision,
            "quantize": quantize,
            "parameters": parameters,
            **speed(type(model), model.config, encoder.max_length, where, numbers.precision),
        }
        return cls(location, model, forward, texts, scoring, facts=facts)

    def encode(self, texts: Sequence[str]) -> list[Encoding | RecordError]:
        """See `TextEncoder.encode`."""
        return self._texts.encode(texts)

    def infer(self, jobs: Sequence[Job]) -> list[Classification | Exception]:
        """A value for each job that `encode` has seen, or a RecordError where the output is not a number.

        Raises OutOfMemory and DeviceError; any other error of torch passes as it is.
        """
        rows, shares = spread(job.encoded for job in jobs)
        return self._task.values(self._logits(rows), shares)

    def warm_up(self, limit: float = 30.0) -> float:
        """Run small and large batches once, so that the first record waits for no kernel.

        `does_not_fit` is known after that: from a batch that found no memory, or, on CUDA, from what the last
        one took of what was free, shared by as many batches as run at a time. Starts no batch after `limit`
        seconds. Returns the seconds it took. Raises StartupError when the device cannot even take one text of
        `max_length` tokens.
        """
        started = time.perf_counter()
        for texts, filled in SHAPES:
            if time.perf_counter() - started > limit:
                log.info("warm-up ended at its limit of %g s", limit)
                break
            length = max(1, int(filled * self.max_length))
            row = self._texts.row(length)
            rows = [row] * texts
            try:
                taken = devices.memory_taken(self.device, partial(self._logits, rows))
            except OutOfMemory as error:
                if texts == 1:
                    raise StartupError(
                        f"{self.device} has no memory for one text of {len(row)} tokens beside "
                        f"'{self.name}': lower model.max_length, or choose another device"
                    ) from error
                log.warning("warm-up ended early: no memory for %d texts of %d tokens", texts, len(row))
                alone = texts * len(row) // self.threads
                self.does_not_fit = min(alone, self.does_not_fit or alone)
                break
            if taken and filled == 1.0:  # of a small batch, most is what any batch takes
                share = devices.memory_free(self.device) / self.threads
                self.does_not_fit = int(share / taken * texts * len(row))
        return time.perf_counter() - started

    def describe(self) -> dict[str, Any]:
        """What `streamer check` and the start's log line say of it."""
        device = str(self.device)
        if self.device.type == "cuda":
            device = f"{device} ({torch.cuda.get_device_name(self.device)})"
        return {
            "name": self.name,
            "revision": self.revision,
            "device": device,
            **self._facts,
            "labels": list(self._task.labels),
            "max_length": self.max_length,
            "attention": self._forward.attention,
            "path": self._forward.path,
            **({} if self._forward.reason is None else {"attention_reason": self._forward.reason}),
        }

    def _logits(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """[texts, labels] of a batch, or what its failure means."""
        try:
            with torch.inference_mode():
                return np.asarray(self._lanes.run(self._forward, rows).numpy())
        except (RuntimeError, MemoryError) as error:
            batch = f"{len(rows)} texts, the longest of {max(map(len, rows))} tokens"
            meaning = devices.translate(error, batch)
            if meaning is None:
                raise
            # The frames below hold the tensors of the batch for as long as somebody holds the error.
            traceback.clear_frames(error.__traceback__)
        if isinstance(meaning, OutOfMemory):
            devices.release_memory(self.device)
        raise meaning


def _rows(encoder: TextEncoder, texts: Sequence[str]) -> list[Tokens]:
    """The texts that the model takes, as it would see them."""
    encodings = [found for found in encoder.encode(texts) if isinstance(found, Encoding)]
    rows, _ = spread(found.data for found in encodings)
    return list(rows)
