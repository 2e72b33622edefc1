"""Layers of K models as one: a template's layers get forms that run the weights of all models at
once under torch.func.vmap.

vmap alone would multiply a batch that all models share K times, and would draw the dropout masks of
all models from one generator. Here a shared batch is multiplied by the weights of all models in one
matrix product, and every model's masks come from its own generator, so they are those of its own
training, bit for bit.

K models, B rows, I inputs, O outputs.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.compat.torch_vmap import ModelsTensor, on_stacked, under_vmap
from danlu.layers import dropout
from danlu.layers.recurrent.rnn import LockedDropout
from danlu.layers.text.embeddings import WordEmbedding

# the buffer with a dropout layer's share; stacked, it makes vmap see K of them
SHARE = "stacked_share"
# a linear layer's own matrices of all models in the format of autocast, (K, O, I)
LOW_PRECISION = "stacked_low_precision"


class StackedGenerators:
    """One generator per model, from which its dropout masks are drawn."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.device = device
        self.generators = [torch.Generator(device) for _ in range(count)]
        self.rows: Sequence[int] | None = None  # the models that run now; None: all

    def seed(self, seeds: Sequence[int]) -> None:
        """Seed every model's generator for an update."""
        for generator, seed in zip(self.generators, seeds):
            generator.manual_seed(seed)

    def keep(self, which: Sequence[int]) -> None:
        """Keep only the models with these numbers."""
        self.generators = [self.generators[index] for index in which]

    def masks(
        self, shape: Sequence[int], shares: Sequence[float], dtype: torch.dtype, *, danlus: bool
    ) -> Tensor:
        """(K, *shape): 0 where a number is dropped, 1 / (1 - share) elsewhere; drawn as by danlu's
        dropout (`danlus`, danlu.layers.dropout) or by torch's."""
        if danlus and self.device.type == "cpu" and max(shares) < 1:
            return dropout.dropout_masks(shape, shares, dtype, self._running())
        masks = torch.empty((len(shares), *shape), dtype=dtype, device=self.device)
        for mask, share, generator in zip(masks.unbind(0), shares, self._running()):
            if share:
                mask.bernoulli_(1 - share, generator=generator).div_(1 - share)
            else:  # torch draws nothing where nothing is dropped
                mask.fill_(1.0)
        return masks

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), float32 (K, *shape); each model's as torch.rand draws them."""
        return torch.stack(
            [
                torch.rand(shape, generator=generator, device=self.device)
                for generator in self._running()
            ]
        )

    def _running(self) -> list[torch.Generator]:
        return (
            self.generators
            if self.rows is None
            else [self.generators[index] for index in self.rows]
        )


def prepare(
    template: nn.Module, modules: Sequence[nn.Module], generators: StackedGenerators
) -> dict[str, Tensor]:
    """Give the template's layers their forms for K models; returns further buffers (K,) by name.

    `template` is a copy of one of `modules`, which differ only in weights and dropout shares."""
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
        elif isinstance(layer, nn.Dropout | LockedDropout | WordEmbedding):
            layer_shares = [float(share_of(layers[name])) for layers in others]
            layer.register_buffer(SHARE, torch.zeros(()), persistent=False)
            shares[f"{name}.{SHARE}" if name else SHARE] = torch.tensor(
                layer_shares, dtype=torch.float64, device=generators.device
            )
            if isinstance(layer, WordEmbedding):
                layer.drawn = functools.partial(_drawn, layer, generators)  # type: ignore[assignment]
                continue
            form = _dropped if isinstance(layer, nn.Dropout) else _dropped_alike
            layer.forward = functools.partial(form, layer, generators)  # type: ignore[method-assign]
    return shares


def share_of(layer: nn.Module) -> float:
    """The share that a dropout layer drops; 0 of other layers."""
    if isinstance(layer, nn.Dropout):
        return layer.p
    return layer.share if isinstance(layer, LockedDropout) else 0.0


def _dropped(layer: nn.Module, generators: StackedGenerators, x: Tensor) -> Tensor:
    """Dropout of x (..., I) with a mask per model."""
    if not layer.training:
        return x
    danlus = isinstance(layer, dropout.Dropout)

    def drop(x: ModelsTensor, shares_K: ModelsTensor) -> Tensor:
        x_K = x.stacked()
        shares = shares_K.tensor.tolist()
        return x_K * generators.masks(x_K.shape[1:], shares, x_K.dtype, danlus=danlus)

    return on_stacked(drop, x, _shares(layer))


def _dropped_alike(layer: nn.Module, generators: StackedGenerators, x_BTI: Tensor) -> Tensor:
    """Dropout with the same mask at all T steps of a row."""
    if not layer.training:
        return x_BTI

    def drop(x: ModelsTensor, shares_K: ModelsTensor) -> Tensor:
        x_KBTI = x.stacked()
        shape = (x_KBTI.shape[1], 1, x_KBTI.shape[3])
        shares = shares_K.tensor.tolist()
        return x_KBTI * generators.masks(shape, shares, x_KBTI.dtype, danlus=False)

    return on_stacked(drop, x_BTI, _shares(layer))


def _shares(layer: nn.Module) -> Tensor:
    """The share that a prepared layer drops; (K,) outside of vmap."""
    return layer.get_buffer(SHARE)


def _drawn(layer: nn.Module, generators: StackedGenerators, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of the shape of `like`, from each model's own generator."""
    shape = like.shape

    def draw(like: ModelsTensor) -> Tensor:
        return generators.uniform(shape)

    return on_stacked(draw, like)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if not under_vmap():
        return functional.linear(x, layer.weight, layer.bias)
    low_precision_KOI = layer.__dict__.get(LOW_PRECISION)
    # torch types the bias as always there; nn.Linear(bias=False) has None
    layer_bias = cast("Tensor | None", layer.bias)
    bias = [] if layer_bias is None else [layer_bias]

    def multiply(
        x: ModelsTensor, weight: ModelsTensor, *bias: ModelsTensor
    ) -> Tensor | ModelsTensor:
        weight_KOI = weight.stacked() if low_precision_KOI is None else low_precision_KOI
        bias_KO = bias[0].stacked() if bias else None
        if x.axis is None:
            y = _shared_linear(x.tensor, weight_KOI, bias_KO)  # (..., K, O)
            return ModelsTensor(y, y.ndim - 2, x.count)
        return _own_linear(x.stacked(), weight_KOI, bias_KO)

    return on_stacked(multiply, x, layer.weight, *bias)


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


def _recurrent(
    layer: nn.RNNBase, x_BTI: Tensor, state: object = None
) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
    """(states (B, T, H), the last state as torch's layers return it)."""
    if not under_vmap() or state is not None:
        return type(layer).forward(layer, x_BTI, state)

    def run(*models: ModelsTensor) -> tuple[Tensor, Tensor]:
        return _states(layer.mode, *(tensor.stacked() for tensor in models))

    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    y_BTH, memory_BH = on_stacked(run, x_BTI, *(cast("Tensor", weight) for weight in weights))
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
