"""Attention over a packed row: the texts of a batch one behind another, without padding between them.

`attend` is it. The two functions at the end are what transformers calls in every layer of a model whose
attention implementation is `PACKED`. They know the borders between the texts from the `packing` that the base
model was called with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "streamer_packed"

Tokens = NDArray[np.int32]
States = tuple[Tensor, Tensor, Tensor]


@dataclass(slots=True)
class Packing:
    """A batch on one row, on the device. Behind the last text there may be tokens that belong to none.

    `ids` and `positions` are int32 [1, tokens or more]; `borders` int32 [texts + 1]: text n is at
    `borders[n]:borders[n + 1]`. `runs` has (first token, texts, length) for neighbours of one length.
    `calls` counts the attention layers that have run.
    """

    ids: Tensor
    positions: Tensor
    borders: Tensor
    tokens: int
    longest: int
    runs: list[tuple[int, int, int]]
    calls: int = field(default=0)


def pack(rows: Sequence[Tokens], device: torch.device, padding_index: int | None = None) -> Packing:
    """Put the ids of texts, int32 [tokens] each, on one row of `device`, by one copy.

    Positions count from 0. With `padding_index` they do as RoBERTa has it: from `padding_index + 1`, and
    that token, which may be a word of a text, has the position `padding_index` and is not counted.
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
    total = int(lengths.sum())
    width = total if device.type == "cuda" else round_up(total)
    buffer = torch.zeros(2 * width + len(rows) + 1, dtype=torch.int32, pin_memory=device.type == "cuda")
    ids, positions, borders = np.split(buffer.numpy(), (width, 2 * width))
    np.concatenate(rows, out=ids[:total])
    np.cumsum(lengths, out=borders[1:])
    starts = np.repeat(borders[:-1], lengths)
    if padding_index is None:
        np.subtract(np.arange(total, dtype=np.int32), starts, out=positions[:total])
    else:
        counted = ids[:total] != padding_index
        before = np.concatenate(([0], np.cumsum(counted)))
        positions[:total] = (before[1:] - before[starts]) * counted + padding_index
    there = buffer.to(device, non_blocking=True)
    return Packing(
        ids=there[:width].unsqueeze(0),
        positions=there[width : 2 * width].unsqueeze(0),
        borders=there[2 * width :],
        tokens=total,
        longest=int(lengths.max()),
        runs=_runs(lengths.tolist()),
    )


def round_up(tokens: int) -> int:
    """To the next of 16 steps between a power of two and its double, and of 16 below 512.

    In half precision the CPU's library compiles a kernel for each number of rows that it meets, 10 ms or more
    for every kind of layer: longer than many a batch takes. 2% more tokens leave it few sizes to meet.
    """
    step = max(16, 1 << max(0, (tokens - 1).bit_length() - 5))
    return -(-tokens // step) * step


def _runs(lengths: list[int]) -> list[tuple[int, int, int]]:
    runs, start = [], 0
    for length, group in groupby(lengths):
        texts = len(list(group))
        runs.append((start, texts, length))
        start += texts * length
    return runs


def attend(states: States, packing: Packing, scale: float | None = None, window: int | None = None) -> Tensor:
    """Each text to itself. Query, key, value and the result are [tokens, heads, width].

    `scale` is 1 / sqrt(width) unless given; with `window`, a token sees those less than that far away.
    """
    kernel = _by_kernel if states[0].is_cuda else _by_runs
    return kernel(states, packing, scale, window)


def _by_runs(states: States, packing: Packing, scale: float | None, window: int | None) -> Tensor:
    """One call for each length."""
    query, key, _ = states
    grouped = query.shape[1] != key.shape[1]
    found = torch.zeros(query.shape, dtype=query.dtype, device=query.device)
    for start, texts, length in packing.runs:
        stop = start + texts * length
        parts = [each[start:stop].view(texts, length, *each.shape[1:]).transpose(1, 2) for each in states]
        mask = None
        if window is not None and length > window:
            at = torch.arange(length, device=query.device)
            mask = (at[:, None] - at[None, :]).abs() < window
        done = scaled_dot_product_attention(
            parts[0], parts[1], parts[2], attn_mask=mask, scale=scale, enable_gqa=grouped
        )
        found[start:stop] = done.transpose(1, 2).flatten(0, 1)
    return found


def _by_kernel(states: States, packing: Packing, scale: float | None, window: int | None) -> Tensor:
    """The same by one kernel of CUDA, which skips what is across a border."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = states
    if (groups := query.shape[1] // key.shape[1]) > 1:  # torch 2.11 has no enable_gqa here
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    side = -1 if window is None else window - 1
    longest = packing.longest
    found = varlen_attn(
        query,
        key,
        value,
        packing.borders,
        packing.borders,
        longest,
        longest,
        scale=scale,
        window_size=(side, side),
    )
    assert isinstance(found, Tensor)  # a pair only where the log-sum-exp is asked for
    return found


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, heads, tokens, width] each; returns [1, tokens, heads, width], as transformers wants it."""
    packing.calls += 1
    states = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
    return attend(states, packing, scaling, sliding_window).unsqueeze(0), None


def _no_mask(*_: Any, **__: Any) -> None:
    """Borders take the place of a mask: one of [tokens, tokens] is never built."""


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, _no_mask)
