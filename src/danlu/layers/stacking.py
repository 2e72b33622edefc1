"""Layers of many models as one: a template's layers are given forms that know how to run K weights at once under torch.func.vmap.

vmap alone would multiply a batch that all models share K times, and would draw one dropout mask a model from one stream. Here a shared
batch meets the weights of all models in one matrix product, and every model's masks come from a generator of its own, so that they are
those of its own training, bit for bit.

K models, B rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.recurrent import LockedDropout
from danlu.layers.under_vmap import under_vmap

SHARE = "stacked_share"  # the buffer that holds a dropout layer's share; stacked, it makes vmap see K of them


class Chance:
    """The generators that the models' dropout masks come from, one a model."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.device = device
        self.generators = [torch.Generator(device) for _ in range(count)]

    def seed(self, seeds: Sequence[int]) -> None:
        """Begin an update: each model's generator at its seed."""
        for generator, seed in zip(self.generators, seeds):
            generator.manual_seed(seed)

    def keep(self, which: Sequence[int]) -> None:
        """Go on with the models of these numbers."""
        self.generators = [self.generators[each] for each in which]

    def masks(self, shape: Sequence[int], shares: Sequence[float], dtype: torch.dtype) -> Tensor:
        """(K, *shape): 0 where a number is dropped, 1 / (1 - share) elsewhere; each model's as torch's own dropout draws it."""
        masks = torch.empty((len(shares), *shape), dtype=dtype, device=self.device)
        for mask, share, generator in zip(masks.unbind(0), shares, self.generators):
            if share:
                mask.bernoulli_(1 - share, generator=generator).div_(1 - share)
            else:  # torch draws nothing where nothing is dropped
                mask.fill_(1.0)
        return masks


def prepare(template: nn.Module, modules: Sequence[nn.Module], chance: Chance) -> dict[str, Tensor]:
    """Give the template's layers their stacked forms; returns further buffers (K,) by name, to be run with beside its own.

    `template` is a copy of one of `modules`, which may differ in nothing but weights and shares of dropout.
    """
    shares: dict[str, Tensor] = {}
    others = [dict(module.named_modules()) for module in modules]
    for name, layer in list(template.named_modules()):
        kind = type(layer)
        if isinstance(layer, nn.Linear) and kind.forward is nn.Linear.forward:
            layer.forward = functools.partial(_linear, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.Dropout | LockedDropout):
            held = [float(share_of(each[name])) for each in others]
            layer.register_buffer(SHARE, torch.zeros(()), persistent=False)
            shares[f"{name}.{SHARE}" if name else SHARE] = torch.tensor(held, dtype=torch.float64, device=chance.device)
            form = _dropped if isinstance(layer, nn.Dropout) else _dropped_alike
            layer.forward = functools.partial(form, layer, chance)  # type: ignore[method-assign]
    return shares


def share_of(layer: nn.Module) -> float:
    """The share that a dropout layer drops."""
    return float(layer.p if isinstance(layer, nn.Dropout) else layer.share)  # type: ignore[arg-type]


def _dropped(layer: nn.Module, chance: Chance, x: Tensor) -> Tensor:
    return _Dropped.apply(x, getattr(layer, SHARE), chance, False) if layer.training else x  # type: ignore[no-any-return]


def _dropped_alike(layer: nn.Module, chance: Chance, x: Tensor) -> Tensor:
    return _Dropped.apply(x, getattr(layer, SHARE), chance, True) if layer.training else x  # type: ignore[no-any-return]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if not under_vmap():
        return functional.linear(x, layer.weight, layer.bias)
    return _Linear.apply(x, layer.weight, layer.bias)  # type: ignore[no-any-return]


class _OnlyStacked(torch.autograd.Function):
    """A function that is met under vmap alone: its own passes are never run, and torch asks for them."""

    @staticmethod
    def forward(*given: Any) -> Tensor:
        raise NotImplementedError("run for one model outside of a stack")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""


class _Linear(_OnlyStacked):
    """x W' + b of K models: a batch they share is multiplied once by all their matrices side by side."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, int]:  # type: ignore[override]
        K = info.batch_size
        if in_dims[1] is None:  # frozen weights that all share
            return functional.linear(x, weight, bias), in_dims[0]  # type: ignore[return-value]
        weight_KOI = weight.movedim(in_dims[1], 0)
        bias_KO = None if bias is None else bias.movedim(in_dims[2] or 0, 0)
        outputs = weight_KOI.shape[1]
        if in_dims[0] is None:
            flat = None if bias_KO is None else bias_KO.reshape(-1)
            y = functional.linear(x, weight_KOI.reshape(K * outputs, -1), flat)
            return y.unflatten(-1, (K, outputs)), y.ndim - 1
        x_K = x.movedim(in_dims[0], 0)
        flat_KBI = x_K.flatten(1, -2) if x_K.ndim > 2 else x_K.unsqueeze(1)
        if bias_KO is None:
            y_KBO = torch.bmm(flat_KBI, weight_KOI.mT)
        else:
            y_KBO = torch.baddbmm(bias_KO.unsqueeze(1), flat_KBI, weight_KOI.mT)
        return y_KBO.view(*x_K.shape[:-1], outputs), 0


class _Dropped(_OnlyStacked):
    """x times a mask a model; `alike`: the same mask at all places (B, T, I) of a row."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, share: Tensor, chance: Chance, alike: bool) -> tuple[Tensor, int]:  # type: ignore[override]
        x_K = x.unsqueeze(0) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        shape = (x_K.shape[1], 1, x_K.shape[3]) if alike else x_K.shape[1:]
        return x_K * chance.masks(shape, share.tolist(), x_K.dtype), 0


def stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of K models by name, each (K, ...)."""
    return {name: torch.stack([each[name].detach() for each in tensors]) for name in tensors[0]}
