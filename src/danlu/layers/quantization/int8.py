"""Layers that multiply whole numbers of 8 bits, as CPUs with VNNI do four times as fast as float32.

A weight is `codes` int8 times `scales` float32, one an output. What a layer reads is

    static    round(x / input_scale) + input_zero, uint8: scale and zero are fixed, so the sum over a product is of whole numbers alone
    by row    round(x / s) int8, s = 1/127 of the largest number of the row: each row by itself, so that no answer depends on which rows
              are answered together

Both are exact but for the rounding: the sums are whole numbers of 32 bits. Layers that follow each
other in an nn.Sequential hand the codes on (`following`), with the activation between them done on
the way.

Where there is no such CPU, on other devices and while a model is exported, the same numbers are
multiplied in float32: the answers differ in what float32 rounds. Without VNNI the 8-bit
instructions cut sums off at 16 bits, so they are not used there.

Each layer's buffers are all that there is to know of it: codes, scales, bias, input_scale,
input_zero.
B batch, C channels in, O outputs, I inputs, N rows.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.system import machine

LARGEST = 127  # of a weight's code; -128 is not used, so that codes are as far on both sides
CODES = 255  # the largest code of what a layer reads
_FAST = {"avx512_vnni", "avx_vnni", "amx_int8"}


@functools.cache
def kernels() -> bool:
    """Whether this machine multiplies 8-bit numbers without cutting sums off, and torch has
    oneDNN's operators for it."""
    operators = all(
        hasattr(torch.ops.onednn, name) for name in ("qconv_pointwise", "qlinear_pointwise")
    )
    return (
        operators
        and torch.backends.mkldnn.is_available()
        and bool(_FAST & machine.instruction_sets())
    )


def portable(x: Tensor) -> bool:
    """Whether a product must be made of torch's ordinary operators: another device, another CPU, a
    program that is being captured."""
    return (
        not kernels()
        or x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
    )


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 like the weight, scales float32 (O,)): each output's numbers as multiples of
    1/127 of its largest.

    A scale has 16 significant bits, so that 127 times it is exact: numbers that were rounded once
    are rounded to themselves again."""
    flat = weight.detach().float().flatten(1)
    mantissa, exponent = torch.frexp(flat.abs().amax(1) / LARGEST)
    scales = torch.ldexp(torch.ceil(mantissa * 2**16) / 2**16, exponent)
    shares = torch.where(
        scales[:, None] > 0, flat / scales[:, None].clamp(min=torch.finfo(torch.float32).tiny), 0.0
    )
    return torch.round(shares).to(torch.int8).view(weight.shape), scales


def opened(codes: Tensor, scales: Tensor) -> Tensor:
    """The numbers that codes and scales stand for, float32."""
    return codes.float() * scales.view(-1, *[1] * (codes.ndim - 1))


class Int8(nn.Module):
    """What these layers share: a weight in codes, and the form in which a kernel wants it, made
    when it is first asked for."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        codes, scales = rounded(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self._packed: Any = None

    @property
    def weight(self) -> Tensor:
        """The matrix or kernel, float32, opened anew each time."""
        return opened(self.codes, self.scales)

    def _ready(self) -> Any:
        """What the kernel needs, made anew when the codes were changed since."""
        if self._packed is None or self._packed[0] != self.codes._version:
            with torch.no_grad():
                self._packed = (self.codes._version, *self._pack())
        return self._packed

    def _pack(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # packed weights are of this process

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._packed = None
        return super()._apply(fn, recurse)


class RowInt8Linear(Int8):
    """A linear layer whose inputs are rounded row by row (dynamic quantisation)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """x times the matrix, and the bias."""
        x_NI = x.reshape(-1, self.in_features).float()
        largest_N1 = x_NI.abs().amax(1, keepdim=True).clamp_(min=1e-30)
        codes_NI = torch.round(x_NI * (LARGEST / largest_N1))
        if portable(x) or self.in_features == 1:  # torch 2.13 multiplies a single column wrongly
            y_NO = functional.linear(codes_NI, self.codes.float())
        else:
            y_NO = torch._int_mm(codes_NI.to(torch.int8), self.codes.t())
        y_NO = y_NO * (largest_N1 / LARGEST) * self.scales
        if self.bias is not None:
            y_NO = y_NO + self.bias
        return y_NO.view(*x.shape[:-1], self.out_features).to(x.dtype)


class StaticInt8(Int8):
    """A layer that reads codes at a fixed scale. `relu`: what it gives is cut off at 0;
    `following`: the layer that alone reads it."""

    input_scale: Tensor
    input_zero: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float, zero: int) -> None:
        super().__init__(weight, bias)
        self.register_buffer("input_scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("input_zero", torch.tensor([zero], dtype=torch.uint8))
        self.relu = False
        self._reads: tuple[float, int] | None = None
        self._following: tuple[StaticInt8, ...] = ()  # in a tuple: it is no part of this one

    def hand_on(self, following: StaticInt8) -> None:
        """Give codes, at the scale of the layer that reads them."""
        self._following = (following,)

    def reads(self) -> tuple[float, int]:
        """(scale, zero) of the codes that this layer reads. While a program is captured, where a
        tensor has no value, as last seen."""
        if self._reads is None or not (
            torch.compiler.is_compiling() or torch.compiler.is_exporting()
        ):
            self._reads = float(self.input_scale), int(self.input_zero)
        return self._reads

    def weights_were_read(self) -> None:
        """Look at the numbers that were put in."""
        self.reads()

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer; float32, or codes uint8 where another layer of the kind alone reads
        them."""
        if portable(x):
            return self._portably(x)
        ready = self._ready()
        if x.dtype != torch.uint8:
            x = coded(x, ready[2], ready[3])
        return self._by_kernel(x, ready)

    def _pack(self) -> tuple[Any, ...]:
        scale, zero = self.reads()
        out_scale, out_zero = self._following[0].reads() if self._following else (1.0, 0)
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
        y = self._plain(seen(x, *self.reads()), self.weight)
        return functional.relu(y) if self.relu else y

    def _packed_weight(self, scale: float, zero: int) -> Tensor:
        raise NotImplementedError

    def _by_kernel(self, x: Tensor, ready: Any) -> Tensor:
        raise NotImplementedError

    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError


class StaticInt8Linear(StaticInt8):
    """A linear layer."""

    def __init__(self, layer: nn.Module, scale: float = 1.0, zero: int = 0) -> None:
        super().__init__(matrix_of(layer), layer.bias, scale, zero)  # type: ignore[arg-type]
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
    """A convolution over one or two dimensions, padded with zeros."""

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
            x, scale, zero, packed, self.scales, zeros, self.bias, self.stride, self.padding, self.dilation, self.groups,
            out_scale, out_zero, dtype, after, [], "",
        )  # fmt: skip

    def _plain(self, x: Tensor, weight: Tensor) -> Tensor:
        one = functional.conv1d if self.codes.ndim == 3 else functional.conv2d
        return one(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def coded(x: Tensor, scale: float, zero: int) -> Tensor:
    """x as codes uint8."""
    x = torch.mul(x, 1.0 / scale)
    if zero:
        x = x.round_().add_(zero)
        return x.clamp_(0, CODES).to(torch.uint8)
    return x.round_().clamp_(0, CODES).to(torch.uint8)


def seen(x: Tensor, scale: float, zero: int) -> Tensor:
    """x as a static layer sees it: rounded to its codes, float32."""
    return (torch.clamp(torch.round(x * (1.0 / scale)) + zero, 0, CODES) - zero) * scale


def matrix_of(layer: nn.Module) -> Tensor:
    """The matrix (outputs, inputs) of a linear layer, also where the layer holds it the other way
    round."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if type(layer).__name__ == "Conv1D" else weight
