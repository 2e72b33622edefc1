"""Layers that multiply 8-bit integers, which CPUs with VNNI do four times as fast as float32.

A weight is `codes` int8 times `scales` float32, one scale for each output. The layer's inputs are
rounded to codes as well, in one of two ways:

    static     round(x / input_scale) + input_zero, uint8: scale and zero point are fixed, so that a
               product is a sum of integers alone
    by row     round(x / s) int8, s = 1/127 of the largest number of the row: every row has a scale
               of its own, so that no answer depends on which rows are in the batch (torch's own
               dynamic quantization takes one scale for a batch)

Both are exact but for the rounding: the sums are 32-bit integers. A static layer in an
nn.Sequential can give the next one its codes (`give_codes_to`), with the ReLU between them applied
on the way.

On a CPU without VNNI, on other devices, and while a model is compiled or exported, the same codes
are multiplied in float32: the answers differ only by float32's rounding. Without VNNI the 8-bit
instructions saturate their sums at 16 bits, so they are not used there.

The state of a layer is in its buffers: codes, scales, bias, input_scale, input_zero.
B batch, C channels in, O outputs, I inputs, N rows.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.selection import is_conv1d
from danlu.layers.tensors import AfterLoad
from danlu.system import machine

LARGEST_WEIGHT_CODE = 127  # -128 is not used, so that the range is symmetric
LARGEST_INPUT_CODE = 255
_FAST = {"avx512_vnni", "avx_vnni", "amx_int8"}


@functools.cache
def has_int8_kernels() -> bool:
    """Whether this machine multiplies 8-bit integers without saturating the sums, and torch has
    oneDNN's operators for it."""
    # hasattr, because builds of torch without oneDNN lack these operators
    operators = all(
        hasattr(torch.ops.onednn, name) for name in ("qconv_pointwise", "qlinear_pointwise")
    )
    return (
        operators
        and torch.backends.mkldnn.is_available()
        and bool(_FAST & machine.instruction_sets())
    )


def needs_float_products(x: Tensor) -> bool:
    """Whether products must use torch's ordinary float operators: x is on another device, this CPU
    has no fast 8-bit instructions, or the model is being compiled or exported."""
    return (
        not has_int8_kernels()
        or x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
    )


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 of the weight's shape, scales float32 (O,)): the numbers of each output as
    multiples of 1/127 of the largest of them.

    A scale has 16 significant bits, so that 127 times it is exact: quantizing a dequantized weight
    gives the same codes again.

    >>> codes, scales = quantize(torch.tensor([[1.27, -0.64]]))
    >>> codes.tolist()
    [[127, -64]]
    """
    flat = weight.detach().float().flatten(1)
    mantissa, exponent = torch.frexp(flat.abs().amax(1) / LARGEST_WEIGHT_CODE)
    scales = torch.ldexp(torch.ceil(mantissa * 2**16) / 2**16, exponent)
    shares = torch.where(
        scales[:, None] > 0, flat / scales[:, None].clamp(min=torch.finfo(torch.float32).tiny), 0.0
    )
    return torch.round(shares).to(torch.int8).view(weight.shape), scales


def dequantize(codes: Tensor, scales: Tensor) -> Tensor:
    """The float32 weight that codes (O, ...) and scales (O,) stand for, of the shape of codes."""
    return codes.float() * scales.view(-1, *[1] * (codes.ndim - 1))


class Int8(nn.Module, ABC):
    """A layer whose weight is stored in codes; `_pack` brings them into the form that a kernel
    takes, once, when the layer is first called."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        codes, scales = quantize(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self._packed: Any = None

    @property
    def weight(self) -> Tensor:
        """The weight as float32, dequantized at every access."""
        return dequantize(self.codes, self.scales)

    def _ready(self) -> Any:
        """The packed weight, packed again where the codes have changed since."""
        if self._packed is None or self._packed[0] != self.codes._version:
            with torch.no_grad():
                self._packed = (self.codes._version, *self._pack())
        return self._packed

    @abstractmethod
    def _pack(self) -> tuple[Any, ...]:
        """What the layer's kernel takes."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # a packed weight is valid in this process only

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._packed = None
        return super()._apply(fn, recurse)


class DynamicInt8Linear(Int8):
    """A linear layer (..., I) -> (..., O) whose inputs are rounded row by row (dynamic
    quantization)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b, in the dtype of x."""
        x_NI = x.reshape(-1, self.in_features).float()
        largest_N1 = x_NI.abs().amax(1, keepdim=True).clamp_(min=1e-30)
        codes_NI = torch.round(x_NI * (LARGEST_WEIGHT_CODE / largest_N1))
        if (
            needs_float_products(x) or self.in_features == 1
        ):  # torch 2.13 multiplies a single column wrongly
            y_NO = functional.linear(codes_NI, self.codes.float())
        else:
            y_NO = torch._int_mm(codes_NI.to(torch.int8), self.codes.t())
        y_NO = y_NO * (largest_N1 / LARGEST_WEIGHT_CODE) * self.scales
        if self.bias is not None:
            y_NO = y_NO + self.bias
        return y_NO.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def _pack(self) -> tuple[Any, ...]:
        return ()  # torch._int_mm takes the codes as they are


class StaticInt8(Int8, AfterLoad):
    """A layer whose inputs are rounded with a fixed scale and zero point. With `relu` its output
    passes a ReLU."""

    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float, zero: int) -> None:
        super().__init__(weight, bias)
        self.register_buffer("input_scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("input_zero", torch.tensor([zero], dtype=torch.uint8))
        self.relu = False
        self._input_codes: tuple[float, int] | None = None
        self._following: tuple[StaticInt8, ...] = ()  # in a tuple: it is no submodule of this one

    def give_codes_to(self, following: StaticInt8) -> None:
        """Let this layer's output be the input codes of `following`, which alone reads it."""
        self._following = (following,)

    def input_codes(self) -> tuple[float, int]:
        """(scale, zero point) of the input's codes. While the model is compiled or exported a
        buffer has no value: then those last read."""
        if self._input_codes is None or not (
            torch.compiler.is_compiling() or torch.compiler.is_exporting()
        ):
            self._input_codes = float(self.input_scale), int(self.input_zero)
        return self._input_codes

    def after_load(self) -> None:
        """Read scale and zero point from the loaded buffers."""
        self.input_codes()

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output: float32, or uint8 codes where `give_codes_to` named a following
        layer."""
        if needs_float_products(x):
            return self._portably(x)
        ready = self._ready()
        if x.dtype != torch.uint8:
            x = to_codes(x, ready[2], ready[3])
        return self._by_kernel(x, ready)

    def _pack(self) -> tuple[Any, ...]:
        scale, zero = self.input_codes()
        out_scale, out_zero = self._following[0].input_codes() if self._following else (1.0, 0)
        dtype = torch.uint8 if self._following else torch.float32
        zeros = torch.zeros(len(self.scales), dtype=torch.int32)
        packed = self._packed_weight(scale, zero)
        return (
            packed,
            scale,
            zero,
            zeros,
            out_scale,
            out_zero,
            dtype,
            "relu" if self.relu else "none",
        )

    def _portably(self, x: Tensor) -> Tensor:
        y = self._plain(fake_quantize(x, *self.input_codes()), self.weight)
        return functional.relu(y) if self.relu else y

    @abstractmethod
    def _packed_weight(self, scale: float, zero: int) -> Tensor:
        """The weight as oneDNN wants it."""

    @abstractmethod
    def _by_kernel(self, x: Tensor, ready: Any) -> Tensor:
        """The output for codes x, by oneDNN; `ready` is what `_pack` gave."""

    @abstractmethod
    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        """The output for x and a float32 weight, by torch's float operators."""


class StaticInt8Linear(StaticInt8):
    """A linear layer (..., I) -> (..., O)."""

    def __init__(self, layer: nn.Module, scale: float = 1.0, zero: int = 0) -> None:
        super().__init__(weight_matrix(layer), layer.bias, scale, zero)  # type: ignore[arg-type]
        self.out_features, self.in_features = self.codes.shape

    def _packed_weight(self, scale: float, zero: int) -> Tensor:
        return torch.ops.onednn.qlinear_prepack(self.codes, None)

    def _by_kernel(self, x: Tensor, ready: Any) -> Tensor:
        _, packed, scale, zero, zeros, out_scale, out_zero, dtype, after = ready
        x_NI = x.reshape(-1, self.in_features)
        y_NO = torch.ops.onednn.qlinear_pointwise(
            x_NI,
            scale,
            zero,
            packed,
            self.scales,
            zeros,
            self.bias,
            out_scale,
            out_zero,
            dtype,
            after,
            [],
            "",
        )
        return y_NO if x.ndim == 2 else y_NO.view(*x.shape[:-1], self.out_features)

    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight, self.bias)


class StaticInt8Conv(StaticInt8):
    """A convolution over one or two dimensions, padded with zeros: (B, C, ...) -> (B, O, ...)."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, scale: float = 1.0, zero: int = 0) -> None:
        super().__init__(layer.weight, layer.bias, scale, zero)
        assert not isinstance(layer.padding, str)
        self.stride, self.padding = list(layer.stride), list(layer.padding)
        self.dilation, self.groups = list(layer.dilation), layer.groups

    def _packed_weight(self, scale: float, zero: int) -> Tensor:
        return torch.ops.onednn.qconv_prepack(
            self.codes,
            self.scales,
            scale,
            zero,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            None,
        )

    def _by_kernel(self, x: Tensor, ready: Any) -> Tensor:
        _, packed, scale, zero, zeros, out_scale, out_zero, dtype, after = ready
        return torch.ops.onednn.qconv_pointwise(
            x,
            scale,
            zero,
            packed,
            self.scales,
            zeros,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            out_scale,
            out_zero,
            dtype,
            after,
            [],
            "",
        )

    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        one = functional.conv1d if self.codes.ndim == 3 else functional.conv2d
        return one(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def to_codes(x: Tensor, scale: float, zero: int) -> Tensor:
    """x, which may be changed in place, as uint8 codes of its shape.

    >>> to_codes(torch.tensor([-1.0, 0.5, 300.0]), 1.0, 2).tolist()
    [1, 2, 255]
    """
    x = torch.mul(x, 1.0 / scale)
    if zero:
        x = x.round_().add_(zero)
        return x.clamp_(0, LARGEST_INPUT_CODE).to(torch.uint8)
    return x.round_().clamp_(0, LARGEST_INPUT_CODE).to(torch.uint8)


def fake_quantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """x rounded to the codes of a static layer and back, float32.

    >>> fake_quantize(torch.tensor([0.4, 0.6, 300.0]), 1.0, 0).tolist()
    [0.0, 1.0, 255.0]
    """
    return (
        torch.clamp(torch.round(x * (1.0 / scale)) + zero, 0, LARGEST_INPUT_CODE) - zero
    ) * scale


def weight_matrix(layer: nn.Module) -> Tensor:
    """The matrix (outputs, inputs) of a linear layer; Conv1D of transformers stores it
    transposed."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if is_conv1d(layer) else weight
