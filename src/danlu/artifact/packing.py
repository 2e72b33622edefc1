"""Tensors in fewer bytes than they have in memory, exactly: what weights.safetensors holds in place of some of them.

    int8      NAME:codes int8, NAME:scales float32 (O,): a float32 tensor that holds no more than 8 bits an output
    sparse    NAME:present uint8, a bit a number, the first in the highest place; NAME:values the numbers that are not 0

How large a tensor becomes is told by the model it belongs to, never by the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from danlu.layers.quantization.int8 import dequantize, quantize

_LEAST = 1024  # numbers of a tensor that is worth it
_ZEROS = 0.5  # share of zeros from which a bitmap pays, also beside compression of the file system


def pack(
    weights: Mapping[str, Tensor], eight_bits: set[str], sparse: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors to write, how each that is written in another form is): those named in 8 bits;
    with `sparse` those mostly zero."""
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
    """The tensors of `stored`; `wanted` are those of the model that they belong to. ValueError or
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
