"""Low-rank adaptation (LoRA): a learnt layer stays as it is, and a narrow path beside it learns what to add.

    y = x W' + b + (alpha / rank) dropout(x) down' up'

`down` (rank, inputs) is drawn, `up` (outputs, rank) begins at 0, so that nothing is changed before
the first update. `merge` puts both into W: the layer is then the one it was, and costs what it
cost. W itself may be kept in few bits (danlu.layers.quantization.nf4): QLoRA.
Sources: Hu et al., 2021, arXiv:2106.09685; Dettmers et al., 2023, arXiv:2305.14314.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.dropout import Dropout
from danlu.layers.quantization.nf4 import FewBits, Kind, keep, open_all


class LowRank(nn.Module):
    """A layer with a narrow path beside it. Weight and bias keep their names, so that a checkpoint
    of the layer fits this one."""

    def __init__(
        self, layer: nn.Module, inputs: int, outputs: int, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self._hold(layer)
        device = next(layer.parameters()).device
        self.low_rank_down = nn.Parameter(torch.empty(rank, inputs, device=device))
        self.low_rank_up = nn.Parameter(torch.zeros(outputs, rank, device=device))
        nn.init.kaiming_uniform_(self.low_rank_down, a=math.sqrt(5))
        self.scale = alpha / rank
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def _hold(self, layer: nn.Module) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        self._layer = (layer,)  # in a tuple: its weights must not be counted twice

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of x, and what the narrow path adds."""
        narrow = functional.linear(self.dropout(x), self.low_rank_down)
        return self._plain(x) + functional.linear(narrow, self.low_rank_up) * self.scale

    def _plain(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)  # type: ignore[arg-type]

    def merged(self) -> nn.Module:
        """The layer that this was made of, with the narrow path in its weights."""
        with torch.no_grad():
            self.weight.add_(self._added())  # type: ignore[operator]
        return self._layer[0]

    def _added(self) -> Tensor:
        return self.low_rank_up @ self.low_rank_down * self.scale


class LowRankConv1D(LowRank):
    """The same for the linear layer of GPT-2 in transformers, Conv1D, whose weight is (inputs,
    outputs)."""

    def _plain(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.T, self.bias)  # type: ignore[arg-type, operator]

    def _added(self) -> Tensor:
        return super()._added().T


class LowRankFewBits(LowRank):
    """The same beside a matrix that is kept in few bits, and is a full one again once the path is
    in it."""

    def _hold(self, layer: nn.Module) -> None:
        self.base = layer

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The matrix that stays."""
        return self.base.weight  # type: ignore[return-value]

    def _plain(self, x: Tensor) -> Tensor:
        return self.base(x)

    def merged(self) -> nn.Module:
        assert isinstance(self.base, FewBits)
        layer = self.base.restored()
        with torch.no_grad():
            layer.weight.add_(self._added().T if self.base.transposed else self._added())  # type: ignore[operator, union-attr]
        return layer


def adaptable(module: nn.Module) -> dict[str, nn.Module]:
    """The layers, by name, that a narrow path can be put beside: those that do nothing but multiply
    by a matrix."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if _is_linear(layer) or _is_conv1d(layer) or isinstance(layer, FewBits)
    }


def close(module: nn.Module, names: Iterable[str], kind: Kind) -> None:
    """Keep the matrices of the layers `names` in few bits."""
    keep(module, [(name, _is_conv1d(module.get_submodule(name))) for name in names], kind)


def adapt(module: nn.Module, names: Iterable[str], rank: int, alpha: float, dropout: float) -> None:
    """Put a narrow path beside the layers `names`."""
    for name in names:
        layer = module.get_submodule(name)
        if isinstance(layer, FewBits):
            kind, turned, (rows, columns) = LowRankFewBits, layer.transposed, layer.matrix_shape
        else:
            turned = _is_conv1d(layer)
            kind = LowRankConv1D if turned else LowRank
            rows, columns = layer.weight.shape  # type: ignore[misc]
        inputs, outputs = (rows, columns) if turned else (columns, rows)
        module.set_submodule(name, kind(layer, int(inputs), int(outputs), rank, alpha, dropout))  # type: ignore[arg-type]


def merge(module: nn.Module) -> None:
    """Put every narrow path into the weights beside it; the module is then built as it was before
    `close` and `adapt`."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, LowRank):
            module.set_submodule(name, layer.merged())
    open_all(module)


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def _is_conv1d(layer: nn.Module) -> bool:
    return (
        type(layer).__name__ == "Conv1D"
        and hasattr(layer, "nf")
        and getattr(layer, "weight", torch.empty(0)).ndim == 2
    )
