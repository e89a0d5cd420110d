"""The linear layers of an encoder in three makes: as they were trained, laid out for the CPU, and in int8.

Each can activate what it gives, or add it to something, so that the makes that can do it in one pass do.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu

# What `hidden_act` of a config says, in the words of the CPU's library: a function, and how it is computed.
ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", "none"),
}

# The library lays weights out for a number of rows; they serve any other as well.
ROWS = 512


class Linear(Protocol):
    """`x @ weight.T + bias`: float [tokens, width] of one type in and out."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """The activation, a key of `ACTIVATIONS`, of the product."""

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product and `residual`, which stays as it is."""


class Dense(nn.Linear):
    """As trained. Several layers that read the same input become one, their outputs side by side."""

    def __init__(self, *parts: nn.Linear) -> None:
        """Shares its weights with a single part."""
        width = sum(part.out_features for part in parts)
        super().__init__(parts[0].in_features, width, device="meta")
        self.weight = _joined(*(part.weight for part in parts))
        self.bias = _joined(*(part.bias for part in parts))

    def activated(self, x: Tensor, activation: str) -> Tensor:
        function, way = ACTIVATIONS[activation]
        return gelu(self(x), approximate=way) if function == "gelu" else relu(self(x))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        return torch.add(self(x), residual)


class Blocked(nn.Module):
    """In the layout that oneDNN wants, which it would make again for every batch.

    These are the operators to which torch.compile turns the linear layers of a frozen model: they need no
    compiler.
    """

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.weight = _mkldnn()._reorder_linear_weight(dense.weight.detach(), ROWS)
        self.bias = dense.bias

    def forward(self, x: Tensor) -> Any:
        return _mkldnn()._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def activated(self, x: Tensor, activation: str) -> Any:
        function, way = ACTIVATIONS[activation]
        return _mkldnn()._linear_pointwise(x, self.weight, self.bias, function, [], way)

    def added(self, x: Tensor, residual: Tensor) -> Any:
        return _mkldnn()._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


class Int8(nn.Module):
    """Products of 8-bit integers: weights by a scale for each output, the input by its range in this batch.

    PyTorch calls it dynamic quantization; the products are oneDNN's, on VNNI or AMX. The input has a zero
    point, since what comes out of an activation lies on one side of 0.
    """

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        weight = dense.weight.detach().float()
        self.scales = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(rounded), dtype=torch.int64)
        self.bias = None if dense.bias is None else dense.bias.detach().float()

    def forward(self, x: Tensor) -> Any:
        # oneDNN takes rows; transformers hands over [1, tokens, width].
        rows = x.flatten(0, -2)
        found = self._pointwise(rows, "none", "")
        return found.view(*x.shape[:-1], found.shape[-1])

    def activated(self, x: Tensor, activation: str) -> Any:
        function, way = ACTIVATIONS[activation]
        return self._pointwise(x, function, way)

    def added(self, x: Tensor, residual: Tensor) -> Any:
        values, scale, zero = _int8(x)
        return torch.ops.onednn.qlinear_pointwise.binary(
            values, scale, zero, self.weight, self.scales, self.zeros, residual, self.bias,
            1.0, 0, x.dtype, 1.0, 0, "add", 1.0, "none", [], "",
        )  # fmt: skip

    def _pointwise(self, x: Tensor, function: str, way: str) -> Any:
        values, scale, zero = _int8(x)
        return torch.ops.onednn.qlinear_pointwise(
            values, scale, zero, self.weight, self.scales, self.zeros, self.bias,
            1.0, 0, x.dtype, function, [], way,
        )  # fmt: skip


def _int8(x: Tensor) -> tuple[Tensor, float, int]:
    """(values, scale, zero point) with x = (values - zero point) * scale; 0 stays 0.

    Of the 256 values two are left to rounding, so nothing has to be clamped.
    """
    low, high = (float(bound) for bound in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 253, torch.finfo(torch.float32).tiny)
    zero = round(-low / scale) - 127
    return torch.add(torch.tensor(float(zero)), x, alpha=1 / scale).round_().to(torch.int8), scale, zero


def _joined(*parts: Any) -> Any:
    if len(parts) == 1:
        return parts[0]
    return nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=False)


def _mkldnn() -> Any:
    return torch.ops.mkldnn
