"""Frozen matrices stored in 4 or 8 bits and multiplied in full precision: the base of QLoRA.

    nf4   4 bits: one of 16 values, times the largest number of its block of 64. The values are the
          quantiles of a normal distribution, so that normal weights use each equally often. The
          scales of the blocks are stored in 8 bits (double quantization): 4.14 bits a number in all
    int8  8 bits: an integer from -127 to 127, times 1/127 of the largest number of its block of 64:
          8.5 bits a number in all

A product dequantizes the matrix in the forward pass and again in the backward pass, so that one
full matrix exists at a time, however many layers there are. All state is in plain tensors, which a
checkpoint writes like any others.
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
_SCALES = 256  # scales that share a second scale
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class FrozenQuantizedLinear(nn.Module):
    """A linear layer whose matrix is frozen and stored in few bits.

    `layer` is the linear layer it replaces; with `transposed` its matrix is (inputs, outputs). The
    layer's own matrix is released; `dequantized_layer` gives the layer back with the matrix as it
    was multiplied by. The stored tensors are parameters without a gradient.
    """

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
        self._layer = (layer,)  # in a tuple: it is no submodule of this one

    @property
    def weight(self) -> Tensor:
        """The matrix as float32, dequantized at every access."""
        return self.dequantized(torch.float32)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The matrix, of the layer's own shape, in `dtype`."""
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
        """x W' + b; in autocast's format where it is on, else in the dtype of x."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        y = _Product.apply(x.to(dtype), self)
        return y if self.bias is None else y + self.bias.to(dtype)  # type: ignore[union-attr, operator]

    def dequantized_layer(self) -> nn.Module:
        """The layer that this one was made of, with its matrix in full."""
        layer = self._layer[0]
        layer.weight = nn.Parameter(self.weight)
        return layer


class _Product(torch.autograd.Function):
    """x W', which keeps no dequantized matrix for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenQuantizedLinear) -> Tensor:  # type: ignore[override]
        ctx.layer = layer
        weight = layer.dequantized(x.dtype)
        return functional.linear(x, weight.T if layer.transposed else weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        weight = ctx.layer.dequantized(gradient.dtype)
        return gradient @ (weight.T if ctx.layer.transposed else weight), None


def quantize_layers(module: nn.Module, layers: Iterable[tuple[str, bool]], kind: Kind) -> None:
    """Store the matrices of `layers`, pairs (name, transposed), in few bits, in place."""
    for name, transposed in layers:
        module.set_submodule(
            name, FrozenQuantizedLinear(module.get_submodule(name), kind, transposed)
        )


def dequantize_layers(module: nn.Module) -> None:
    """Undo `quantize_layers`, in place: every matrix is a full one again."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, FrozenQuantizedLinear):
            module.set_submodule(name, layer.dequantized_layer())


def parameter_count(module: nn.Module) -> int:
    """How many parameters a module has; a quantized matrix counts as many as the full one.

    >>> parameter_count(nn.Linear(4, 3))
    15
    """
    quantized = [layer for layer in module.modules() if isinstance(layer, FrozenQuantizedLinear)]
    kept = {
        parameter
        for layer in quantized
        for name, parameter in layer.named_parameters(recurse=False)
        if name != "bias"
    }
    plain = sum(parameter.numel() for parameter in module.parameters() if parameter not in kept)
    return plain + sum(layer.matrix_shape[0] * layer.matrix_shape[1] for layer in quantized)


def quantized_bytes(module: nn.Module) -> tuple[int, int]:
    """(bytes of the quantized matrices, bytes of the same matrices in float32)."""
    quantized = [layer for layer in module.modules() if isinstance(layer, FrozenQuantizedLinear)]
    stored = [
        parameter
        for layer in quantized
        for name, parameter in layer.named_parameters(recurse=False)
        if name != "bias"
    ]
    full = sum(4 * layer.matrix_shape[0] * layer.matrix_shape[1] for layer in quantized)
    return sum(parameter.numel() * parameter.element_size() for parameter in stored), full


def _blocks(weight: Tensor) -> Tensor:
    """The numbers of a matrix as float32 (blocks, BLOCK), padded with zeros."""
    flat = weight.float().flatten()
    return functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _in_eight_bits(weight: Tensor) -> dict[str, Tensor]:
    blocks = _blocks(weight)
    scales = blocks.abs().amax(dim=1) / 127
    return {"codes": torch.round(_shares(blocks, scales)).to(torch.int8), "scales": scales}


def _from_eight_bits(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float().mul_(scales[:, None])


def _in_four_bits(weight: Tensor) -> dict[str, Tensor]:
    """`codes` uint8, two NF4 codes in a byte, the first in the upper half; the scales as
    `_scales_in_eight_bits` stores them."""
    blocks = _blocks(weight)
    kept = _scales_in_eight_bits(blocks.abs().amax(dim=1))
    values = torch.tensor(NF4, device=weight.device)
    # codes are relative to the exact largest number; the stored scale differs from it by at most
    # 0.4 % of the range of the scales
    codes = torch.bucketize(
        _shares(blocks, blocks.abs().amax(dim=1)), (values[1:] + values[:-1]) / 2, out_int32=True
    )
    codes = codes.to(torch.uint8)
    return {"codes": (codes[:, ::2] << 4) | codes[:, 1::2], **kept}


def _pairs(device: torch.device) -> Tensor:
    """The two NF4 values that each byte encodes, float32 (256, 2)."""
    values = torch.tensor(NF4, device=device)
    return torch.cartesian_prod(values, values)


def _from_four_bits(
    pairs: Tensor, codes: Tensor, scales: Tensor, scales_of_scales: Tensor, mean_scale: Tensor
) -> Tensor:
    values = pairs.index_select(0, codes.flatten().int()).view(len(codes), BLOCK)
    full = _from_eight_bits(scales, scales_of_scales).flatten()[: len(codes)] + mean_scale
    return values.mul_(full[:, None])


def _scales_in_eight_bits(scales: Tensor) -> dict[str, Tensor]:
    """Scales as their mean and, in 8 bits, the difference of each from it."""
    mean = scales.mean()
    differences = scales - mean
    groups = functional.pad(differences, (0, -len(differences) % _SCALES)).view(-1, _SCALES)
    largest = groups.abs().amax(dim=1) / 127
    return {
        "scales": torch.round(_shares(groups, largest)).to(torch.int8),
        "scales_of_scales": largest,
        "mean_scale": mean[None],
    }


def _shares(blocks: Tensor, scales: Tensor) -> Tensor:
    """Each number divided by its block's scale; 0 where the scale is 0."""
    return torch.where(
        scales[:, None] > 0,
        blocks / scales[:, None].clamp(min=torch.finfo(torch.float32).tiny),
        0.0,
    )
