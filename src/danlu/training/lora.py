"""Low-rank adaptation (LoRA): a trained layer stays frozen; a narrow path beside it learns.

    y = x W' + b + (alpha / rank) dropout(x) down' up'

`down` (rank, inputs) is drawn at random, `up` (outputs, rank) starts at 0, so that the output is
unchanged before the first update. `merge_lora` adds the product of both to W: the layer then has
its old form and its old cost. W itself may be stored in few bits (danlu.layers.quantization.nf4):
QLoRA.
Sources: Hu et al., 2021, arXiv:2106.09685; Dettmers et al., 2023, arXiv:2305.14314.
"""

# torch's Module.named_modules has no return type, and a weight is Tensor | Module.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.dropout import Dropout
from danlu.layers.quantization.nf4 import (
    FrozenQuantizedLinear,
    Kind,
    dequantize_layers,
    quantize_layers,
)
from danlu.layers.selection import is_conv1d, is_linear


class LoraLinear(nn.Module):
    """A linear layer with a low-rank path beside it. Weight and bias keep their names in the state
    dict, so that a checkpoint of the layer fits this one."""

    def __init__(
        self, layer: nn.Module, inputs: int, outputs: int, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self._adopt(layer)
        device = next(layer.parameters()).device
        self.low_rank_down = nn.Parameter(torch.empty(rank, inputs, device=device))
        self.low_rank_up = nn.Parameter(torch.zeros(outputs, rank, device=device))
        nn.init.kaiming_uniform_(self.low_rank_down, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def _adopt(self, layer: nn.Module) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        self._layer = (layer,)  # in a tuple: its weights must not be counted twice

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for x, plus that of the low-rank path."""
        narrow = functional.linear(self.dropout(x), self.low_rank_down)
        return self._base_output(x) + functional.linear(narrow, self.low_rank_up) * self.scale

    def _base_output(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)  # type: ignore[arg-type]

    def merged(self) -> nn.Module:
        """The layer that this one was made of, with the low-rank product added to its weight."""
        with torch.no_grad():
            self.weight.add_(self._weight_change())  # type: ignore[operator]
        return self._layer[0]

    def _weight_change(self) -> Tensor:
        return self.low_rank_up @ self.low_rank_down * self.scale


class LoraConv1D(LoraLinear):
    """The same for Conv1D of transformers, the linear layer of GPT-2, whose weight is (inputs,
    outputs)."""

    def _base_output(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.T, self.bias)  # type: ignore[arg-type, operator]

    def _weight_change(self) -> Tensor:
        return super()._weight_change().T


class LoraQuantizedLinear(LoraLinear):
    """The same for a quantized matrix, which becomes a full one again when the low-rank product is
    merged."""

    def _adopt(self, layer: nn.Module) -> None:
        self.base = layer

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The frozen matrix, dequantized."""
        return self.base.weight  # type: ignore[return-value]

    def _base_output(self, x: Tensor) -> Tensor:
        return self.base(x)

    def merged(self) -> nn.Module:
        assert isinstance(self.base, FrozenQuantizedLinear)
        layer = self.base.dequantized_layer()
        with torch.no_grad():
            layer.weight.add_(
                self._weight_change().T if self.base.transposed else self._weight_change()
            )  # type: ignore[operator, union-attr]
        return layer


def adaptable_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers, by name, that an adapter can be added to: linear layers, and those whose matrix
    is quantized already."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if is_linear(layer) or is_conv1d(layer) or isinstance(layer, FrozenQuantizedLinear)
    }


def quantize_base(module: nn.Module, names: Iterable[str], kind: Kind) -> None:
    """Store the matrices of the layers `names` in few bits, in place."""
    quantize_layers(module, [(name, is_conv1d(module.get_submodule(name))) for name in names], kind)


def add_lora(
    module: nn.Module, names: Iterable[str], rank: int, alpha: float, dropout: float
) -> None:
    """Add a low-rank path of `rank` to each of the layers `names`, in place; `dropout` is the share
    of its inputs that is dropped in training."""
    for name in names:
        layer = module.get_submodule(name)
        if isinstance(layer, FrozenQuantizedLinear):
            kind, turned, (rows, columns) = (
                LoraQuantizedLinear,
                layer.transposed,
                layer.matrix_shape,
            )
        else:
            turned = is_conv1d(layer)
            kind = LoraConv1D if turned else LoraLinear
            rows, columns = layer.weight.shape  # type: ignore[misc]
        inputs, outputs = (rows, columns) if turned else (columns, rows)
        module.set_submodule(name, kind(layer, int(inputs), int(outputs), rank, alpha, dropout))  # type: ignore[arg-type]


def merge_lora(module: nn.Module) -> None:
    """Undo `quantize_base` and `add_lora`, in place: every low-rank product is added to the weight
    beside it, and the module is built as it was before."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LoraLinear):
            module.set_submodule(name, layer.merged())
    dequantize_layers(module)
