"""Lossless packing of tensors in weights.safetensors: 8-bit and mostly zero tensors take fewer
bytes than in memory.

    int8      NAME:codes int8, NAME:scales float32 (O,): a float32 tensor with at most 8 bits per
              output
    sparse    NAME:present uint8, one bit per number, the first in the highest bit; NAME:values the
              numbers that are not 0

The size of an unpacked tensor comes from the model, never from the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from danlu.layers.quantization.int8 import dequantize, quantize

_LEAST = 1024  # numbers of a tensor that is worth packing
_ZEROS = 0.5  # share of zeros from which a bitmap is smaller, also on a compressing file system


def pack(
    weights: Mapping[str, Tensor], eight_bits: set[str], sparse: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors to write, the form of each packed tensor by name). Packed are the tensors in
    `eight_bits`, and with `sparse` those that are mostly zero.

    Raises ValueError where a tensor in `eight_bits` has more than 8 bits.
    """
    tensors: dict[str, Tensor] = {}
    how: dict[str, str] = {}
    for name, tensor in weights.items():
        if sparse and tensor.numel() >= _LEAST and float((tensor == 0).float().mean()) > _ZEROS:
            how[name] = "sparse"
            present = tensor != 0
            tensors[f"{name}:present"] = _bits(present)
            tensors[f"{name}:values"] = tensor[present].contiguous()
        elif name in eight_bits:
            codes, scales = quantize(tensor)
            if not torch.equal(dequantize(codes, scales), tensor):
                raise ValueError(f"{name} holds more than 8 bits")
            how[name] = "int8"
            tensors[f"{name}:codes"], tensors[f"{name}:scales"] = codes, scales
        else:
            tensors[name] = tensor
    return tensors, how


def unpack(
    packed: Mapping[str, Tensor], how: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors that `pack` packed; `wanted` are those of the model. Raises ValueError or
    KeyError where they do not fit it."""
    left = dict(packed)
    for name, form in how.items():
        like = wanted[name]
        if form == "int8":
            codes, scales = left.pop(f"{name}:codes"), left.pop(f"{name}:scales")
            if (
                codes.shape != like.shape
                or scales.shape != like.shape[:1]
                or codes.dtype != torch.int8
            ):
                raise ValueError(f"the codes of {name} have another shape than the model's tensor")
            left[name] = dequantize(codes, scales)
        elif form == "sparse":
            left[name] = _filled(
                left.pop(f"{name}:present"), left.pop(f"{name}:values"), like, name
            )
        else:
            raise ValueError(f"{name} is stored in a form that this danlu does not know")
    return left


_PLACES = 1 << torch.arange(7, -1, -1, dtype=torch.uint8)


def _bits(present: Tensor) -> Tensor:
    flat = torch.nn.functional.pad(
        present.flatten().to(torch.uint8), (0, -present.numel() % 8)
    ).view(-1, 8)
    return (flat * _PLACES).sum(1, dtype=torch.uint8)


def _filled(bits: Tensor, values: Tensor, like: Tensor, name: str) -> Tensor:
    if (
        bits.dtype != torch.uint8
        or bits.shape != (-(-like.numel() // 8),)
        or values.dtype != like.dtype
    ):
        raise ValueError(f"the bitmap of {name} is of another tensor than the model's")
    present = ((bits[:, None] & _PLACES) != 0).flatten()[: like.numel()]
    if int(present.sum()) != len(values):
        raise ValueError(f"{name} has {len(values):,} values for {int(present.sum()):,} places")
    full = torch.zeros(like.numel(), dtype=like.dtype)
    full[present] = values
    return full.view(like.shape)
