"""Batch normalisation folded into the layer before it: in evaluation both are affine maps.

    w' = w g / sqrt(v + e)        b' = (b - m) g / sqrt(v + e) + h

g and h are the learnt scale and shift, m and v the running mean and variance, e the epsilon of the
normalisation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def foldable_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """(layer, normalisation) by name, wherever one directly follows the other in an nn.Sequential.

    >>> foldable_pairs(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()))
    [('0', '1')]
    """
    pairs = []
    for name, parent in module.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        for (first, layer), (second, norm) in itertools.pairwise(parent.named_children()):
            if (
                isinstance(layer, _LAYERS)
                and isinstance(norm, _NORMS)
                and norm.running_mean is not None
            ):
                prefix = f"{name}." if name else ""
                pairs.append((prefix + first, prefix + second))
    return pairs


def fold(module: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Fold each normalisation into the layer before it, in place; an nn.Identity replaces it.

    `pairs` are names as `foldable_pairs` gives them. Raises ValueError where the layers of a pair
    are of other kinds.
    """
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
