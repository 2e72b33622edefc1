"""A batch normalisation that follows a convolution or linear layer, as part of its weights: in evaluation both are one affine map.

w' = w g / sqrt(v + e)        b' = (b - m) g / sqrt(v + e) + h        g, h scale and shift, m, v running mean and variance
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def foldable(module: nn.Module) -> list[tuple[str, str]]:
    """(layer, normalisation) by name, where one follows the other in an nn.Sequential."""
    found = []
    for name, each in module.named_modules():
        if not isinstance(each, nn.Sequential):
            continue
        inside = list(each.named_children())
        for (first, layer), (second, norm) in itertools.pairwise(inside):
            if (
                isinstance(layer, _LAYERS)
                and isinstance(norm, _NORMS)
                and norm.running_mean is not None
            ):
                before = f"{name}." if name else ""
                found.append((before + first, before + second))
    return found


def fold(module: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Put each normalisation into the layer before it; an nn.Identity takes its place."""
    for first, second in pairs:
        layer, norm = module.get_submodule(first), module.get_submodule(second)
        if not isinstance(layer, _LAYERS) or not isinstance(norm, _NORMS):
            raise ValueError(f"{second} cannot be folded into {first}")
        _fold(layer, norm)
        module.set_submodule(second, nn.Identity())


def _fold(layer: nn.Linear | nn.Conv1d | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        factor = torch.rsqrt(norm.running_var + norm.eps)
        factor = factor if norm.weight is None else factor * norm.weight
        shift = -norm.running_mean * factor
        shift = shift if norm.bias is None else shift + norm.bias
        bias = shift if layer.bias is None else layer.bias * factor + shift
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias = nn.Parameter(bias.clone())
