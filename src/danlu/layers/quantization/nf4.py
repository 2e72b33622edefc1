"""Frozen matrices kept in few bits a number and multiplied in full precision: the base of QLoRA.

    nf4   4 bits: which of 16 values, times the largest number of its block of 64. The values are such that numbers drawn from a normal
          distribution fall on each equally often. The blocks' scales are kept in 8 bits themselves (double quantisation): 4.14 bits in all
    int8  8 bits: a whole number from -127 to 127, times 1/127 of the largest number of its block of 64: 8.5 bits in all

A product opens the matrix for as long as it takes, in the forward pass and once more in the
backward one, so that one open matrix is held at a time, whatever the number of layers. Everything
kept is a plain tensor, which checkpoints write as they do any other.
Source: Dettmers et al., 2023, arXiv:2305.14314 (NF4, sections 2 and 3, values of appendix E).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["int8", "nf4"]
BLOCK = 64  # numbers that share a scale
_SCALES = 256  # scales that share a scale of theirs
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class FewBits(nn.Module):
    """A layer that multiplies by a frozen matrix, which is kept in few bits a number.

    `layer` is a linear layer, or (`transposed`) one whose matrix is (inputs, outputs). Its own
    matrix is let go of; `restored` gives the layer back with the matrix as it was multiplied by.
    What is kept are parameters that never move."""

    pairs: Tensor | None

    def __init__(self, layer: nn.Module, kind: Kind, transposed: bool) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.transposed = transposed
        self.matrix_shape = tuple(weight.shape)
        kept = _in_four_bits(weight.detach()) if kind == "nf4" else _in_eight_bits(weight.detach())
        for name, tensor in kept.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self.register_buffer(
            "pairs", _pairs(weight.device) if kind == "nf4" else None, persistent=False
        )
        self.bias = layer.bias
        layer.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        self._layer = (layer,)  # in a tuple: it is no part of this one

    @property
    def weight(self) -> Tensor:
        """The matrix, float32, opened anew each time."""
        return self.opened(torch.float32)

    def opened(self, dtype: torch.dtype) -> Tensor:
        """The matrix."""
        with torch.no_grad():
            kept = dict(self.named_parameters(recurse=False))
            kept.pop("bias", None)
            blocks = (
                _from_four_bits(self.pairs, **kept)
                if self.pairs is not None
                else _from_eight_bits(**kept)
            )
            rows, columns = self.matrix_shape
            return blocks.flatten()[: rows * columns].view(rows, columns).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x times the matrix, and the bias."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        y = _Product.apply(x.to(dtype), self)
        return y if self.bias is None else y + self.bias.to(dtype)  # type: ignore[union-attr, operator]

    def restored(self) -> nn.Module:
        """The layer that this was made of, its matrix in full."""
        layer = self._layer[0]
        layer.weight = nn.Parameter(self.weight)
        return layer


class _Product(torch.autograd.Function):
    """x W', of which no open matrix is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FewBits) -> Tensor:  # type: ignore[override]
        ctx.layer = layer
        weight = layer.opened(x.dtype)
        return functional.linear(x, weight.T if layer.transposed else weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        weight = ctx.layer.opened(gradient.dtype)
        return gradient @ (weight.T if ctx.layer.transposed else weight), None


def keep(module: nn.Module, layers: Iterable[tuple[str, bool]], kind: Kind) -> None:
    """Keep the matrices of the layers, (name, transposed), in few bits."""
    for name, transposed in layers:
        module.set_submodule(name, FewBits(module.get_submodule(name), kind, transposed))


def open_all(module: nn.Module) -> None:
    """Make every matrix a full one again; the module is then built as it was before `keep`."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, FewBits):
            module.set_submodule(name, layer.restored())


def numbers(module: nn.Module) -> int:
    """How many weights a module has, those kept in few bits counted as what they stand for."""
    closed = [layer for layer in module.modules() if isinstance(layer, FewBits)]
    kept = {
        each
        for layer in closed
        for name, each in layer.named_parameters(recurse=False)
        if name != "bias"
    }
    plain = sum(each.numel() for each in module.parameters() if each not in kept)
    return plain + sum(layer.matrix_shape[0] * layer.matrix_shape[1] for layer in closed)


def room(module: nn.Module) -> tuple[int, int]:
    """(bytes of the matrices that are kept in few bits, what they took in float32)."""
    closed = [layer for layer in module.modules() if isinstance(layer, FewBits)]
    kept = [
        each
        for layer in closed
        for name, each in layer.named_parameters(recurse=False)
        if name != "bias"
    ]
    full = sum(4 * layer.matrix_shape[0] * layer.matrix_shape[1] for layer in closed)
    return sum(each.numel() * each.element_size() for each in kept), full


def _blocks(weight: Tensor) -> Tensor:
    """The numbers of a matrix, float32 (blocks, BLOCK), zeros after the last."""
    flat = weight.float().flatten()
    return functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _in_eight_bits(weight: Tensor) -> dict[str, Tensor]:
    blocks = _blocks(weight)
    scales = blocks.abs().amax(dim=1) / 127
    return {"codes": torch.round(_shares(blocks, scales)).to(torch.int8), "scales": scales}


def _from_eight_bits(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float().mul_(scales[:, None])


def _in_four_bits(weight: Tensor) -> dict[str, Tensor]:
    """`codes` uint8: two of NF4 in a byte, the first in the upper half; the scales as in
    `_scales_in_eight_bits`."""
    blocks = _blocks(weight)
    kept = _scales_in_eight_bits(blocks.abs().amax(dim=1))
    values = torch.tensor(NF4, device=weight.device)
    # measured against the largest itself, which the kept scale misses by at most 0.4 % of the
    # spread
    codes = torch.bucketize(
        _shares(blocks, blocks.abs().amax(dim=1)), (values[1:] + values[:-1]) / 2, out_int32=True
    )
    codes = codes.to(torch.uint8)
    return {"codes": (codes[:, ::2] << 4) | codes[:, 1::2], **kept}


def _pairs(device: torch.device) -> Tensor:
    """The two values that each byte stands for, float32 (256, 2)."""
    values = torch.tensor(NF4, device=device)
    return torch.cartesian_prod(values, values)


def _from_four_bits(
    pairs: Tensor, codes: Tensor, scales: Tensor, scales_of_scales: Tensor, mean_scale: Tensor
) -> Tensor:
    opened = pairs.index_select(0, codes.flatten().int()).view(len(codes), BLOCK)
    full = _from_eight_bits(scales, scales_of_scales).flatten()[: len(codes)] + mean_scale
    return opened.mul_(full[:, None])


def _scales_in_eight_bits(scales: Tensor) -> dict[str, Tensor]:
    """Scales as the mean of all and, in 8 bits, what each is away from it."""
    mean = scales.mean()
    apart = scales - mean
    groups = functional.pad(apart, (0, -len(apart) % _SCALES)).view(-1, _SCALES)
    largest = groups.abs().amax(dim=1) / 127
    return {
        "scales": torch.round(_shares(groups, largest)).to(torch.int8),
        "scales_of_scales": largest,
        "mean_scale": mean[None],
    }


def _shares(blocks: Tensor, scales: Tensor) -> Tensor:
    """Each number as a share of its block's scale; 0 where that is 0."""
    return torch.where(
        scales[:, None] > 0,
        blocks / scales[:, None].clamp(min=torch.finfo(torch.float32).tiny),
        0.0,
    )
