"""Whether a model may run without padding: asked of the model itself, not of a list of names.

Some families never call transformers' attention interface, and would be silently wrong on a packed row: each
text would see its neighbours.
"""

from __future__ import annotations

import logging
import math
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from streamer.backends.torch.attention import PACKED, Tokens
from streamer.backends.torch.forward import Forward, Packed, Padded, Pooling, Run
from streamer.backends.torch.loading import Encoder, quiet

log = logging.getLogger(__name__)

# Of the test's texts, in tokens: not sorted, two alike, one of a single token, and one beyond the window of
# the usual models with local attention.
LENGTHS = (9, 3, 150, 23, 23, 1, 64)
# How far logits may differ, as a share of the largest (of 1 if that is less): in float32, where packed and
# plain do the same sums in another order, and in half precision. A border or a position that was forgotten
# costs far more.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1


@torch.inference_mode()
def choose_forward(model: Any, encoder: Encoder) -> Forward:
    """Packed if every layer calls our attention, and texts of mixed lengths get the plain model's logits.

    `model` is in float32 and on the CPU. One that fails is left as it was.
    """
    plain = model.config._attn_implementation
    rows = _texts(model, encoder)
    alone = Padded(model, encoder)
    expected = torch.cat([alone([row]) for row in rows])
    try:
        with quiet():
            model.set_attn_implementation(PACKED)
            return _fitting(model, rows, expected)
    except ValueError as error:
        return _give_up(model, encoder, plain, error)
    except Exception as error:  # as many kinds as there are models; each can go on with its own attention
        failed = ValueError(f"{type(model).__name__} fails on a packed row ({error})")
        return _give_up(model, encoder, plain, failed)


@torch.inference_mode()
def confirm(packed: Packed, model: Any, encoder: Encoder, precision: str, plain: str = "sdpa") -> Forward:
    """The same question where the model is now, in the precision that it has now: for the kernel of CUDA."""
    try:
        if precision == "fp32":
            raise TypeError("the attention kernel of CUDA multiplies bf16 and fp16, not fp32")
        rows = _texts(model, encoder)
        found = packed(rows)
        _use(model, plain)
        drift = _drift(found, Padded(model, encoder)(rows))
        _use(model, PACKED)
        if drift > HALF_TOLERANCE:
            raise ValueError(f"on {model.device}, its logits differ by {drift:.1e}")
    except (RuntimeError, ValueError, TypeError) as error:
        return _give_up(model, encoder, plain, error)
    return packed


@torch.inference_mode()
def drift_of(forward: Run, reference: Run, model: Any, encoder: Encoder) -> float:
    """How far two ways through one model are apart: a share of the largest logit, infinite for a NaN."""
    rows = _texts(model, encoder)
    return _drift(forward(rows), reference(rows))


def _fitting(model: Any, rows: list[Tokens], expected: Tensor) -> Packed:
    """The first way to pool that gives the expected logits. Raises ValueError when none does."""
    family, layers = type(model).__name__, model.config.num_hidden_layers
    drifts = []
    for pooling in get_args(Pooling):
        packed = Packed(model, pooling)
        packing = packed.pack(rows)
        found = packed.run(packing)
        if packing.calls != layers:
            raise ValueError(
                f"{packing.calls} of {layers} layers of {family} call transformers' attention interface"
            )
        drifts.append(_drift(found, expected))
        if drifts[-1] <= TOLERANCE:
            return packed
    raise ValueError(f"packed, the logits of {family} differ by {min(drifts):.1e}")


def _give_up(model: Any, encoder: Encoder, plain: str, error: Exception) -> Padded:
    _use(model, plain)
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    log.warning("batches are padded, which is slower: %s", reason)
    return Padded(model, encoder, reason)


def _use(model: Any, attention: str) -> None:
    with quiet():
        model.set_attn_implementation(attention)


def _drift(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    scale = max(1.0, expected.abs().max().item())
    drift = (found.float() - expected.float()).abs().max().item() / scale
    return math.inf if math.isnan(drift) else drift


def _texts(model: Any, encoder: Encoder) -> list[Tokens]:
    """Random ids of `LENGTHS`, without the padding token."""
    random = np.random.default_rng(5)
    known = np.delete(np.arange(model.get_input_embeddings().num_embeddings, dtype=np.int32), encoder.pad_id)
    return [random.choice(known, min(length, encoder.max_length)) for length in LENGTHS]
