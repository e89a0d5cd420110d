"""From the tokens of a batch to logits: without padding, or with. `selftest.py` chooses."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from streamer.backends.torch.attention import Packing, Tokens, pack
from streamer.backends.torch.loading import Encoder, position_embeddings

Pooling = Literal["first", "mean", "late"]


# Logits, [texts, labels], of the ids of texts, int32 [tokens] each.
Run = Callable[[Sequence[Tokens]], Tensor]


class Forward(Protocol):
    """A model with its way to batch.

    `attention` names it; `reason` says why it is not packed, where it might be. `path` is whose code runs the
    layers: transformers' ("generic"), our own ("functional") or OpenVINO ("openvino").
    """

    @property
    def attention(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    def __call__(self, rows: Sequence[Tokens]) -> Tensor:
        """Logits, [texts, labels] on the device, of the ids of texts, int32 [tokens] each."""

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        """How many tokens the device computes on, see `Backend.cost`."""


class Padded:
    """All texts of a batch as long as its longest, which costs little when they are of like length."""

    attention = "padded"

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        reason: str | None = None,
        *,
        path: str = "generic",
        multiple: int = 1,
    ) -> None:
        """`model` has an attention of transformers' own.

        Batches are as long as a multiple of `multiple` tokens, or as the longest text there may be.
        """
        self.reason = reason
        self.path = path
        self._multiple = multiple
        self._max_length = encoder.max_length
        self.model = model
        self._pad_id = encoder.pad_id
        self._takes_type_ids = encoder.takes_type_ids

    def __call__(self, rows: Sequence[Tokens]) -> Tensor:
        inputs = self._pad(rows)
        arguments = {"input_ids": inputs[0], "attention_mask": inputs[1]}
        if self._takes_type_ids:
            arguments["token_type_ids"] = torch.zeros_like(inputs[0])
        logits: Tensor = self.model(**arguments).logits
        return logits

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        # A text in windows counts as a single one that is longer than any.
        return texts * max(longest, self._width(longest))

    def _width(self, longest: int) -> int:
        return min(self._max_length, -(-longest // self._multiple) * self._multiple)

    def _pad(self, rows: Sequence[Tokens]) -> Tensor:
        """Ids and mask, int64 [2, texts, tokens]; pinned where the copy to the device needs it."""
        device = self.model.device
        shape = (2, len(rows), self._width(max(map(len, rows))))
        padded = torch.empty(shape, dtype=torch.int64, pin_memory=device.type == "cuda")
        ids, mask = padded.numpy()
        ids.fill(self._pad_id)
        mask.fill(0)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return padded.to(device, non_blocking=True)


class Packed:
    """All texts of a batch on one row. The base model runs over it; then one vector a text goes to the head.

    The head is the model's own code: a copy of the model in which the base does nothing but pool.
    """

    attention = "packed"
    path = "generic"
    reason = None

    def __init__(self, model: Any, pooling: Pooling = "first") -> None:
        """`model` has the attention `PACKED`.

        The head gets the states of a text's first token, or the mean of all its tokens'; or every token's,
        and its logits are averaged ("late", EuroBERT's).
        """
        self._model = model
        self._states: Callable[[Packing], Tensor] = self._from_base
        self._base = model.base_model
        self._pooling = pooling
        self._takes_type_ids = "token_type_ids" in inspect.signature(self._base.forward).parameters
        # The padding token that positions are counted around, for RoBERTa and its kin.
        table = position_embeddings(self._base)
        self._padding_index = None if table is None else table.padding_idx
        self._head = copy.copy(model)
        self._head._modules = {**model._modules, model.base_model_prefix: Pooler(self._base)}

    def __call__(self, rows: Sequence[Tokens]) -> Tensor:
        return self.run(self.pack(rows))

    def pack(self, rows: Sequence[Tokens]) -> Packing:
        """The batch on the device."""
        return pack(rows, self.device, self._padding_index)

    @property
    def device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    def run(self, packing: Packing) -> Tensor:
        """Logits, [texts, labels], of a batch that is on the device."""
        states = self._states(packing)
        borders = packing.borders
        if self._pooling == "first":
            return self._logits(states.index_select(0, borders[:-1]))
        states = states[: packing.tokens].float()
        if self._pooling == "mean":
            return self._logits(_means(states, borders))
        return _means(self._logits(states), borders)

    def through(self, states: Callable[[Packing], Tensor]) -> Packed:
        """The same with other code for the layers, which gives the last states, [tokens, width]."""
        other = copy.copy(self)
        other._states, other.path = states, "functional"
        return other

    def cost(self, texts: int, tokens: int, longest: int) -> int:
        return tokens

    def _logits(self, vectors: Tensor) -> Tensor:
        """The head on vectors, [any, width]."""
        logits: Tensor = self._head(inputs_embeds=vectors.float().unsqueeze(1)).logits
        return logits

    def _from_base(self, packing: Packing) -> Tensor:
        arguments = {"input_ids": packing.ids, "position_ids": packing.positions, "packing": packing}
        if self._takes_type_ids:
            arguments["token_type_ids"] = torch.zeros_like(packing.ids)
        states: Tensor = self._base(**arguments).last_hidden_state.squeeze(0)
        return states


def _means(tokens: Tensor, borders: Tensor) -> Tensor:
    # "Unsafe" leaves a check of the lengths out, for which the host would wait for the device.
    return torch.segment_reduce(tokens, "mean", lengths=borders.diff(), axis=0, unsafe=True)


class Pooler(torch.nn.Module):
    """In the place of a base model: takes its last states, [texts, 1, width], and gives what it would."""

    def __init__(self, base: torch.nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(base, "pooler", None)
        self.pooler_activation = getattr(base, "pooler_activation", None)

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = None
        if self.pooler is not None and self.pooler_activation is not None:  # ALBERT: the pooler is a layer
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)
