"""Layers whose weights are kept in few bits and multiplied as numbers: what reading a large matrix from memory costs is divided by 4 or 8.

    int8    a whole number from -127 to 127 times the output's scale
    int4    16 steps from the least to the largest number of each group of inputs; two codes in a byte on disk

`products` says in which format rows are multiplied. bfloat16: by kernels that open the codes on the
way, about twice as fast as float32 where few rows are answered at a time (measured, one core with
AVX-512: 1024 x 1024, 1 row 27 us against 62, 64 rows 0.9 ms against 1.6); inputs and answers keep 8
significant bits. float32: the matrix is opened for each product; exact, but at one row half as fast
as float32 itself.

Buffers hold all that is known of a layer. int8: codes (O, I), scales (O,). int4: codes uint8 (O, I'
/ 2), the first of two in the upper half; scales and least float32 (O, groups). I' is I up to a
multiple of the group. I inputs, O outputs, V codes of a vocabulary, D width."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.quantization.int8 import Int8, matrix_of

Products = Literal["bfloat16", "float32"]
GROUPS = (32, 64, 128, 256)  # what torch's kernel knows
_ROWS = 16  # the outputs of the kernel for 4 bits come in such blocks
_INPUTS = 32  # the inputs of the kernel for 8 bits


class KeptInt8Linear(Int8):
    """A linear layer whose matrix is kept in 8 bits."""

    def __init__(self, layer: nn.Module, products: Products) -> None:
        super().__init__(matrix_of(layer), layer.bias)  # type: ignore[arg-type]
        self.out_features, self.in_features = self.codes.shape
        self.products: Products = products

    def forward(self, x: Tensor) -> Tensor:
        """x times the matrix, and the bias."""
        return kept_product(self, x, self.products, self.bias)

    def _pack(self) -> tuple[Tensor, Tensor]:
        return _whole_blocks(self)


class KeptInt8Embedding(Int8):
    """A table of vectors kept in 8 bits, a scale for each; `product` is what a tied output layer
    asks of it."""

    def __init__(self, layer: nn.Embedding, products: Products) -> None:
        super().__init__(layer.weight, None)
        self.num_embeddings, self.embedding_dim = self.codes.shape
        self.padding_idx = layer.padding_idx
        self.products: Products = products

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens, float32."""
        return functional.embedding(tokens, self.codes).float() * self.scales[tokens][..., None]

    def product(self, x: Tensor) -> Tensor:
        """x times the transposed table."""
        return kept_product(self, x, self.products, None)

    def _pack(self) -> tuple[Tensor, Tensor]:
        return _whole_blocks(self)


def kept_product(layer: Int8, x: Tensor, products: Products, bias: Tensor | None) -> Tensor:
    """x times a matrix that is kept in 8 bits, in the format asked for."""
    if products == "float32" or x.device.type != "cpu" or _captured():
        y = functional.linear(x.float(), layer.codes.float()) * layer.scales
    else:
        _, codes, scales = layer._ready()
        x_NI = x.reshape(-1, x.shape[-1]).bfloat16()
        if codes.shape[1] != x_NI.shape[1]:
            x_NI = functional.pad(x_NI, (0, codes.shape[1] - x_NI.shape[1]))
        y = (
            torch._weight_int8pack_mm(x_NI, codes, scales)
            .float()
            .view(*x.shape[:-1], len(layer.codes))
        )
    return (y if bias is None else y + bias).to(x.dtype)


def _whole_blocks(layer: Int8) -> tuple[Tensor, Tensor]:
    """(codes, scales) as the kernel reads them: inputs in whole blocks, else it reads, and crashes,
    beyond the matrix (torch 2.13)."""
    more = -layer.codes.shape[1] % _INPUTS
    return functional.pad(layer.codes, (0, more)) if more else layer.codes, layer.scales.bfloat16()


class KeptInt4Linear(nn.Module):
    """A linear layer whose matrix is kept in 4 bits."""

    codes: Tensor
    scales: Tensor
    least: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module, group: int, products: Products) -> None:
        super().__init__()
        weight = matrix_of(layer)
        self.out_features, self.in_features = weight.shape
        self.group, self.products = group, products
        codes, scales, least = in_groups(weight, group)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("least", least)
        bias = layer.bias
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())  # type: ignore[operator]
        self._packed: tuple[int, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The matrix, float32, opened anew each time."""
        codes = unpacked(self.codes).view(self.out_features, -1, self.group).float()
        return (codes * self.scales[..., None] + self.least[..., None]).flatten(1)[
            :, : self.in_features
        ]

    def forward(self, x: Tensor) -> Tensor:
        """x times the matrix, and the bias."""
        if self.products == "float32" or x.device.type != "cpu" or _captured():
            y = functional.linear(x.float(), self.weight)
        else:
            y = self._by_kernel(x.reshape(-1, self.in_features)).view(
                *x.shape[:-1], self.out_features
            )
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def _by_kernel(self, x_NI: Tensor) -> Tensor:
        if self._packed is None or self._packed[0] != self.codes._version:
            with torch.no_grad():
                self._packed = self._pack()
        _, packed, steps = self._packed
        wide = self.scales.shape[1] * self.group - self.in_features
        x_NI = functional.pad(x_NI.bfloat16(), (0, wide)) if wide else x_NI.bfloat16()
        return torch._weight_int4pack_mm_for_cpu(x_NI, packed, self.group, steps)[
            :, : self.out_features
        ].float()

    def _pack(self) -> tuple[int, Tensor, Tensor]:
        """The form torch's kernel wants: blocks of 16 outputs; w = (code - 8) scale + middle."""
        more = -self.out_features % _ROWS
        codes = functional.pad(unpacked(self.codes).int(), (0, 0, 0, more))
        middle = self.least + 8 * self.scales
        steps = (
            functional.pad(torch.stack([self.scales, middle], dim=-1), (0, 0, 0, 0, 0, more))
            .transpose(0, 1)
            .contiguous()
        )
        return (
            self.codes._version,
            torch._convert_weight_to_int4pack_for_cpu(codes, 1),
            steps.bfloat16(),
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None}


def in_groups(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(codes two a byte, scales, least) of a matrix (O, I), in groups of inputs.

    Scale and middle are rounded to what bfloat16 holds, which is what the kernel reads them in, so
    that every way of multiplying means the same numbers."""
    weight = weight.detach().float()
    wide = functional.pad(weight, (0, -weight.shape[1] % group), mode="constant").view(
        len(weight), -1, group
    )
    least, most = wide.amin(-1), wide.amax(-1)
    scales = ((most - least) / 15).bfloat16().float()
    middle = (least + 8 * scales).bfloat16().float()
    shares = (wide - middle[..., None]) / scales.clamp(min=1e-30)[..., None]
    codes = (
        torch.where(scales[..., None] > 0, torch.round(shares) + 8, 8.0)
        .clamp(0, 15)
        .to(torch.uint8)
        .flatten(1)
    )
    return (codes[:, ::2] << 4) | codes[:, 1::2], scales, middle - 8 * scales


def unpacked(codes: Tensor) -> Tensor:
    """uint8 (O, I'), one code a byte."""
    return torch.stack([codes >> 4, codes & 15], dim=-1).flatten(-2)


def _captured() -> bool:
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def tied_product(x: Tensor, table: nn.Module) -> Tensor:
    """x times a table of vectors transposed: an output layer that shares the table."""
    if isinstance(table, KeptInt8Embedding):
        return table.product(x)
    assert isinstance(table.weight, Tensor)
    return functional.linear(x, table.weight)
