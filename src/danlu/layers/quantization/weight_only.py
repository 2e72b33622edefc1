"""Layers with weights in 8 or 4 bits that are multiplied as floats: less memory traffic.

    int8    an integer from -127 to 127, times a scale for each output
    int4    one of 16 steps from the smallest to the largest number of each group of inputs; on disk
            two codes in a byte

`products` is the format that rows are multiplied in. bfloat16 uses kernels that dequantize on the
way, about twice as fast as float32 where few rows are answered at a time (measured, one core with
AVX-512: 1024 x 1024, 1 row 27 us against 62, 64 rows 0.9 ms against 1.6); inputs and outputs keep 8
significant bits. float32 dequantizes the whole matrix for each product: exact, but for one row half
as fast as a float32 layer.

The state of a layer is in its buffers. int8: codes (O, I), scales (O,). int4: codes uint8 (O, I' /
2), the first of two in the upper half; scales and least (the smallest number) float32 (O, groups).
I' is I rounded up to a multiple of the group.
I inputs, O outputs, V codes of a vocabulary, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.quantization.int8 import Int8, weight_matrix

Products = Literal["bfloat16", "float32"]
GROUPS = (32, 64, 128, 256)  # the group sizes that torch's kernel takes
_ROWS = 16  # the 4-bit kernel takes outputs in blocks of so many
_INPUTS = 32  # the 8-bit kernel takes inputs in blocks of so many


class Int8WeightOnlyLinear(Int8):
    """A linear layer (..., I) -> (..., O) whose matrix is stored in 8 bits."""

    def __init__(self, layer: nn.Module, products: Products) -> None:
        super().__init__(weight_matrix(layer), layer.bias)  # type: ignore[arg-type]
        self.out_features, self.in_features = self.codes.shape
        self.products: Products = products

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in the dtype of x."""
        return int8_product(self, x, self.products, self.bias)

    def _pack(self) -> tuple[Tensor, Tensor]:
        return _whole_blocks(self)


class Int8WeightOnlyEmbedding(Int8):
    """An embedding (...) int64 -> (..., D) whose vectors are stored in 8 bits, with one scale for
    each vector. An output layer tied to it calls `product`."""

    def __init__(self, layer: nn.Embedding, products: Products) -> None:
        super().__init__(layer.weight, None)
        self.num_embeddings, self.embedding_dim = self.codes.shape
        self.padding_idx = layer.padding_idx
        self.products: Products = products

    def forward(self, tokens: Tensor) -> Tensor:
        """The float32 vectors of tokens."""
        return functional.embedding(tokens, self.codes).float() * self.scales[tokens][..., None]

    def product(self, x: Tensor) -> Tensor:
        """x (..., D) times the transposed table, (..., V)."""
        return int8_product(self, x, self.products, None)

    def _pack(self) -> tuple[Tensor, Tensor]:
        return _whole_blocks(self)


def int8_product(layer: Int8, x: Tensor, products: Products, bias: Tensor | None) -> Tensor:
    """x (..., I) times the transposed codes of `layer`, plus `bias`, in the dtype of x; `products`
    is the format of the multiplication."""
    if products == "float32" or x.device.type != "cpu" or _is_traced():
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
    """(codes, scales) as the kernel takes them: inputs padded to whole blocks, because the kernel
    of torch 2.13 reads beyond a matrix of another size and crashes."""
    more = -layer.codes.shape[1] % _INPUTS
    return functional.pad(layer.codes, (0, more)) if more else layer.codes, layer.scales.bfloat16()


class Int4WeightOnlyLinear(nn.Module):
    """A linear layer (..., I) -> (..., O) whose matrix is stored in 4 bits."""

    codes: Tensor
    scales: Tensor
    least: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module, group: int, products: Products) -> None:
        super().__init__()
        weight = weight_matrix(layer)
        self.out_features, self.in_features = weight.shape
        self.group, self.products = group, products
        codes, scales, least = quantize_in_groups(weight, group)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("least", least)
        bias = layer.bias
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())  # type: ignore[operator]
        self._packed: tuple[int, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) as float32, dequantized at every access."""
        codes = unpack_int4(self.codes).view(self.out_features, -1, self.group).float()
        return (codes * self.scales[..., None] + self.least[..., None]).flatten(1)[
            :, : self.in_features
        ]

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in the dtype of x."""
        if self.products == "float32" or x.device.type != "cpu" or _is_traced():
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
        """(version of the codes, packed codes, scales and middles) as torch's kernel takes them:
        blocks of 16 outputs, w = (code - 8) scale + middle."""
        more = -self.out_features % _ROWS
        codes = functional.pad(unpack_int4(self.codes).int(), (0, 0, 0, more))
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


def quantize_in_groups(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(codes, two in a byte; scales; least) of a matrix (O, I), in groups of `group` inputs.

    Scale and middle are rounded to bfloat16, in which the kernel reads them, so that every way of
    multiplying uses the same numbers.
    """
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


def unpack_int4(codes: Tensor) -> Tensor:
    """The codes of bytes (..., n) as (..., 2 n) uint8, one code in a byte.

    >>> unpack_int4(torch.tensor([[0x1F]], dtype=torch.uint8)).tolist()
    [[1, 15]]
    """
    return torch.stack([codes >> 4, codes & 15], dim=-1).flatten(-2)


def _is_traced() -> bool:
    # a kernel would become an operator that other runtimes lack
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def tied_product(x: Tensor, table: nn.Module) -> Tensor:
    """x (..., D) times the transposed table of an embedding, (..., V): an output layer that is tied
    to the embedding."""
    if isinstance(table, Int8WeightOnlyEmbedding):
        return table.product(x)
    assert isinstance(table.weight, Tensor)
    return functional.linear(x, table.weight)
