"""Layers of many models as one: a template's layers are given forms that know how to run K weights at once under torch.func.vmap.

vmap alone would multiply a batch that all models share K times, and would draw one dropout mask a
model from one stream. Here a shared batch meets the weights of all models in one matrix product,
and every model's masks come from a generator of its own, so that they are those of its own
training, bit for bit.

K models, B rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.compat.torch_vmap import expanded, on_stacked, stacked_or_none, under_vmap, unwrap
from danlu.layers import dropout
from danlu.layers.recurrent.rnn import LockedDropout

SHARE = "stacked_share"  # the buffer that holds a dropout layer's share; stacked, it makes vmap see K of them
NARROW = "stacked_narrow"  # where a linear layer finds the matrices of all models in the format of autocast, (K, O, I)


class StackedGenerators:
    """The generators that the models' dropout masks come from, one a model."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.device = device
        self.generators = [torch.Generator(device) for _ in range(count)]
        self.places: Sequence[int] | None = None  # of the models that run now; None: all

    def seed(self, seeds: Sequence[int]) -> None:
        """Begin an update: each model's generator at its seed."""
        for generator, seed in zip(self.generators, seeds):
            generator.manual_seed(seed)

    def keep(self, which: Sequence[int]) -> None:
        """Go on with the models of these numbers."""
        self.generators = [self.generators[index] for index in which]

    def masks(
        self, shape: Sequence[int], shares: Sequence[float], dtype: torch.dtype, *, ours: bool
    ) -> Tensor:
        """(K, *shape): 0 where a number is dropped, 1 / (1 - share) elsewhere; each model's as
        `ours` (danlu.layers.dropout) or torch's own dropout draws it."""
        if ours and self.device.type == "cpu" and max(shares) < 1:
            return dropout.dropout_masks(shape, shares, dtype, self._running())
        masks = torch.empty((len(shares), *shape), dtype=dtype, device=self.device)
        for mask, share, generator in zip(masks.unbind(0), shares, self._running()):
            if share:
                mask.bernoulli_(1 - share, generator=generator).div_(1 - share)
            else:  # torch draws nothing where nothing is dropped
                mask.fill_(1.0)
        return masks

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers from [0, 1), float32 (K, *shape); each model's as torch.rand draws them."""
        return torch.stack(
            [
                torch.rand(shape, generator=generator, device=self.device)
                for generator in self._running()
            ]
        )

    def _running(self) -> list[torch.Generator]:
        return (
            self.generators
            if self.places is None
            else [self.generators[index] for index in self.places]
        )


def prepare(
    template: nn.Module, modules: Sequence[nn.Module], chance: StackedGenerators
) -> dict[str, Tensor]:
    """Give the template's layers their stacked forms; returns further buffers (K,) by name, to be
    run with beside its own.

    `template` is a copy of one of `modules`, which may differ in nothing but weights and shares of
    dropout."""
    shares: dict[str, Tensor] = {}
    others = [dict(module.named_modules()) for module in modules]
    for name, layer in list(template.named_modules()):
        kind = type(layer)
        if isinstance(layer, nn.Linear) and kind.forward is nn.Linear.forward:
            layer.forward = functools.partial(_linear, layer)  # type: ignore[method-assign]
        elif (
            isinstance(layer, nn.RNNBase)
            and layer.num_layers == 1
            and not layer.bidirectional
            and layer.batch_first
            and layer.bias
        ):
            layer.forward = functools.partial(_recurrent, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.Dropout | LockedDropout) or hasattr(layer, "drawn"):
            layer_shares = [float(share_of(layers[name])) for layers in others]
            layer.register_buffer(SHARE, torch.zeros(()), persistent=False)
            shares[f"{name}.{SHARE}" if name else SHARE] = torch.tensor(
                layer_shares, dtype=torch.float64, device=chance.device
            )
            if hasattr(layer, "drawn"):
                layer.drawn = functools.partial(_drawn, layer, chance)  # type: ignore[assignment]
                continue
            form = _dropped if isinstance(layer, nn.Dropout) else _dropped_alike
            layer.forward = functools.partial(form, layer, chance)  # type: ignore[method-assign]
    return shares


def share_of(layer: nn.Module) -> float:
    """The share that a dropout layer drops; 0 of other layers."""
    return float(getattr(layer, "p" if isinstance(layer, nn.Dropout) else "share", 0.0))


def _dropped(layer: nn.Module, chance: StackedGenerators, x: Tensor) -> Tensor:
    """x times a mask a model."""
    if not layer.training:
        return x
    x_K, shares = expanded(x), unwrap(getattr(layer, SHARE))[0].tolist()
    return on_stacked(
        lambda: (
            x_K
            * chance.masks(
                x_K.shape[1:], shares, x_K.dtype, ours=isinstance(layer, dropout.Dropout)
            )
        )
    )  # type: ignore[no-any-return]


def _dropped_alike(layer: nn.Module, chance: StackedGenerators, x_BTI: Tensor) -> Tensor:
    """The same mask at all places of a row."""
    if not layer.training:
        return x_BTI
    x_K, shares = expanded(x_BTI), unwrap(getattr(layer, SHARE))[0].tolist()
    shape = (x_K.shape[1], 1, x_K.shape[3])
    return on_stacked(lambda: x_K * chance.masks(shape, shares, x_K.dtype, ours=False))  # type: ignore[no-any-return]


def _drawn(layer: nn.Module, chance: StackedGenerators, like: Tensor) -> Tensor:
    """Numbers from [0, 1) of the shape of `like`, each model's from its own generator."""
    return on_stacked(lambda: chance.uniform(like.shape))  # type: ignore[no-any-return]


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if not under_vmap():
        return functional.linear(x, layer.weight, layer.bias)
    weight_KOI = layer.__dict__.get(NARROW)
    if weight_KOI is None:
        weight_KOI = stacked_or_none(layer.weight)
    if weight_KOI is None:
        return functional.linear(x, layer.weight, layer.bias)
    bias_KO = None if layer.bias is None else stacked_or_none(layer.bias)
    stacked, axis = unwrap(x)
    if axis is None:
        return on_stacked(lambda: _shared_linear(stacked, weight_KOI, bias_KO), x.ndim - 1)  # type: ignore[no-any-return]
    return on_stacked(lambda: _own_linear(stacked.movedim(axis, 0), weight_KOI, bias_KO))  # type: ignore[no-any-return]


def _shared_linear(x: Tensor, weight_KOI: Tensor, bias_KO: Tensor | None) -> Tensor:
    """(..., K, O): a batch that all models share, multiplied once by all their matrices side by
    side."""
    K, outputs = weight_KOI.shape[:2]
    flat = None if bias_KO is None else bias_KO.reshape(-1)
    return functional.linear(x, weight_KOI.reshape(K * outputs, -1), flat).unflatten(
        -1, (K, outputs)
    )


def _own_linear(x_K: Tensor, weight_KOI: Tensor, bias_KO: Tensor | None) -> Tensor:
    """(K, ..., O): each model's own input by its own matrix."""
    # laid out model by model: the gradient of a strided one is multiplied three times as slowly
    # (bfloat16, torch 2.13)
    flat_KBI = (x_K.flatten(1, -2) if x_K.ndim > 2 else x_K.unsqueeze(1)).contiguous()
    if bias_KO is None:
        y_KBO = torch.bmm(flat_KBI, weight_KOI.mT)
    else:
        y_KBO = torch.baddbmm(bias_KO.unsqueeze(1), flat_KBI, weight_KOI.mT)
    return y_KBO.view(*x_K.shape[:-1], weight_KOI.shape[1])


def _recurrent(layer: nn.RNNBase, x_BTI: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """What the layer gives: states (B, T, H), and the last as torch's layers hand it out."""
    if not under_vmap() or state is not None:
        return type(layer).forward(layer, x_BTI, state)
    weights = [
        expanded(cast(Tensor, weight))
        for weight in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    ]
    x_KBTI = expanded(x_BTI)
    y_BTH, memory_BH = on_stacked(lambda: _states(layer.mode, x_KBTI, *weights))
    last = y_BTH[:, -1].unsqueeze(0)
    return y_BTH, (last, memory_BH.unsqueeze(0)) if layer.mode == "LSTM" else last


def _states(
    mode: str, x_KBTI: Tensor, into_KGI: Tensor, back_KGH: Tensor, bias_KG: Tensor, other_KG: Tensor
) -> tuple[Tensor, Tensor]:
    """(states (K, B, T, H), the last memory (K, B, H)), place after place; the products of all
    inputs come first, at once."""
    K, count, steps = x_KBTI.shape[:3]
    read = torch.baddbmm(
        bias_KG.unsqueeze(1), x_KBTI.reshape(K, count * steps, -1), into_KGI.mT
    ).view(K, count, steps, -1)
    back_KHG, other = back_KGH.mT, other_KG.unsqueeze(1)
    state = read.new_zeros(K, count, back_KGH.shape[2])
    memory = torch.zeros_like(state)
    states = []
    for step in range(steps):
        own = torch.baddbmm(other, state, back_KHG)
        state, memory = _cell(mode, read[:, :, step], own, state, memory)
        states.append(state)
    return torch.stack(states, dim=2), memory


def _cell(
    mode: str, read: Tensor, own: Tensor, state: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """(state, memory) after one place, of the products with its input and with the state before
    it."""
    if mode == "LSTM":
        enter, forget, new, out = (read + own).chunk(4, dim=-1)
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        return out.sigmoid() * memory.tanh(), memory
    if mode == "GRU":
        reset, keep, new = read.chunk(3, dim=-1)
        own_reset, own_keep, own_new = own.chunk(3, dim=-1)
        kept = (keep + own_keep).sigmoid()
        new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
        return torch.lerp(new, state, kept), memory
    moved = read + own
    return moved.relu() if mode == "RNN_RELU" else moved.tanh(), memory


def stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of K models by name, each (K, ...)."""
    return {name: torch.stack([model[name].detach() for model in tensors]) for name in tensors[0]}
