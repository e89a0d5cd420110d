"""The fast path for BERT, RoBERTa, DistilBERT and whatever else has their layers: a loop over packed rows.

The same numbers as transformers' modules give, in a third of the calls: query, key and value are one product,
and activation and addition belong to theirs. It knows a model by the names of its layers, and is used only
where the self-test finds it exact.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from streamer.backends.torch.attention import Packing, attend
from streamer.backends.torch.linear import ACTIVATIONS, Dense, Linear


@dataclass(frozen=True, slots=True)
class Names:
    """Where the parts of a layer are."""

    layers: str
    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up: str
    down: str
    norm: str


BERT = Names(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
DISTILBERT = Names(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
)


class Layer(nn.Module):
    """One layer over a packed row, [tokens, width]."""

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear

    def __init__(self, layer: nn.Module, names: Names, heads: int, activation: str, make: Make) -> None:
        super().__init__()
        part: Callable[[str], Any] = layer.get_submodule
        self.heads = heads
        self.activation = activation
        self.qkv = make(Dense(part(names.query), part(names.key), part(names.value)))
        self.out = make(Dense(part(names.out)))
        self.attention_norm = part(names.attention_norm)
        self.up = make(Dense(part(names.up)))
        self.down = make(Dense(part(names.down)))
        self.norm = part(names.norm)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        query, key, value = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        mixed = attend((query, key, value), packing).view(x.shape)
        x = self.attention_norm(self.out.added(mixed, x))
        x = self.norm(self.down.added(self.up.activated(x, self.activation), x))
        return x


Make = Callable[[Dense], Any]


class Functional(nn.Module):
    """The layers of a base model and its own embeddings. Gives its last states, [tokens, width]."""

    def __init__(self, base: Any, names: Names, make: Make) -> None:
        super().__init__()
        config = base.config
        self.embeddings = base.embeddings
        self.project = getattr(base, "embeddings_project", None)  # ELECTRA: narrower than its layers
        self.takes_type_ids = "token_type_ids" in inspect.signature(base.embeddings.forward).parameters
        self.layers = nn.ModuleList(
            Layer(layer, names, config.num_attention_heads, activation_of(config), make)
            for layer in base.get_submodule(names.layers).children()
        )

    def forward(self, packing: Packing) -> Tensor:
        arguments = {"input_ids": packing.ids, "position_ids": packing.positions}
        if self.takes_type_ids:
            arguments["token_type_ids"] = torch.zeros_like(packing.ids)
        x: Tensor = self.embeddings(**arguments)
        if self.project is not None:
            x = self.project(x)
        x = x.squeeze(0)
        for layer in self.layers:
            x = layer(x, packing)
        return x


def find_names(base: Any) -> Names | None:
    """The names under which `base` has the layers that `Functional` computes; None if it has others."""
    if activation_of(base.config) not in ACTIVATIONS:
        return None
    for names in (BERT, DISTILBERT):
        try:
            layers = list(base.get_submodule(names.layers).children())
            for layer in layers:
                for name in (names.query, names.key, names.value, names.out, names.up, names.down):
                    if type(layer.get_submodule(name)) is not nn.Linear:
                        raise AttributeError(f"{name} is no linear layer")
                layer.get_submodule(names.attention_norm)
                layer.get_submodule(names.norm)
        except AttributeError:
            continue
        if layers:
            return names
    return None


def activation_of(config: Any) -> str:
    """DistilBERT has a word of its own for `hidden_act`."""
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation", None))


def drop_layers(base: Any, names: Names) -> None:
    """Free what `Functional` has copies of. The base model cannot run after that."""
    parent, _, name = names.layers.rpartition(".")
    setattr(base.get_submodule(parent), name, nn.ModuleList())
