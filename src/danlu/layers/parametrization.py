"""Maximal update parametrization (muP): one learning rate for every width of a network.

The rate is found on a narrow network and holds for a wide one. A network is built twice, at its own
width and at `base_width`. Dimensions that differ grow with the width, the others do not. With o, i
= times as many outputs and inputs as at the base, each parameter is one of

                       standard deviation  output         learning rate, by how the optimizer
                       at the start        multiplied by  moves it
                                                          gradient  entry   matrix (muon)
  input, bias, norm    as at the base      1              o         1       sqrt(o) / m
  hidden matrix        base / sqrt(i)      1              o / i     1 / i   sqrt(o / i) / m
  readout              as at the base      1 / i          i         1       sqrt(i) / m

where m = sqrt(max(R, C) / max(R, C) at the base), which danlu's Muon has in its update already.
Attention multiplies its scores by sqrt(E at the base / E), so that they grow as 1 / E and not as 1
/ sqrt(E). At the base itself all factors are 1: nothing changes, not a bit.

Weight decay that shrinks the weights beside the update (AdamW, Lion, Muon), or that is added to the
gradient of a plain descent, keeps learning_rate * weight_decay as at the base: how many steps a
weight remembers is then the same at every width. Where it is added to a gradient that is normalised
entry by entry (Adam with L2, RMSprop, Adagrad), it keeps its share of that gradient: (gradient /
weight) at this width over that at the base, which is 1 / sqrt(i) for a hidden matrix, 1 / o for an
input and 1 / i for a readout.

With depth as well (`base_layers`), what a block adds to its residual stream is multiplied by
sqrt(base_layers / layers), and normalised updates (entry, matrix) inside the blocks are shortened
by the same factor.

The norm of the gradient is then dominated by the hidden matrices, the same at every width, so that
train.clip_norm carries over (with a readout without a multiplier, as in the paper's table 3, it
would grow by sqrt(i)).

Not scaled: regularization.l1 and l2, epsilon of the optimizer, dropout. Where a layer takes
features that grow and features that do not side by side, the columns of the latter learn at the
rate of the former.
Sources: Yang et al., 2022, arXiv:2203.03466 (table 8); Yang, Simon and Bernstein, 2023,
arXiv:2310.17813 (matrices by their spectral norm); Yang et al., 2023, arXiv:2310.02244 (depth);
Wang and Aitchison, 2024, arXiv:2405.13698 (weight decay).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.errors import PartError

_UPDATES = ("gradient", "entry", "matrix")


class ScalesForward(nn.Module, ABC):
    """A layer whose forward pass multiplies by factors that muP sets; all are 1 at the base."""

    @abstractmethod
    def forward_multipliers(self) -> dict[str, float]:
        """The factors by name."""


class WidensFrom(ScalesForward):
    """A layer whose factors depend on its width."""

    @abstractmethod
    def widen_from(self, base: nn.Module) -> None:
        """Set the factors for this layer's width; `base` is the same layer at the base width."""


class ResidualBranch(ScalesForward):
    """A block that adds `branch` times what it computes to its residual stream."""

    branch: float = 1.0

    @final
    def forward_multipliers(self) -> dict[str, float]:
        return {"branch": self.branch}


class VocabularyTables:
    """A layer with parameters that have one row for each code of a vocabulary: an optimizer of
    matrices (Muon) must not make them orthogonal. TABLES names these parameters."""

    TABLES: tuple[str, ...] = ()


@dataclass(frozen=True)
class WidthGrowth:
    """How one parameter differs from the base.

    outputs, inputs   times as many as at the base
    multiplier        the factor of its product in the forward pass
    branch            the factor of the residual block that it is in
    longer_side       times as long as at the base, of the parameter taken as a matrix

    >>> WidthGrowth(outputs=4.0, inputs=4.0).learning_rate("entry")
    0.25
    """

    outputs: float = 1.0
    inputs: float = 1.0
    multiplier: float = 1.0
    branch: float = 1.0
    longer_side: float = 1.0

    @property
    def spread(self) -> float:
        """Its standard deviation at the start, over the base's."""
        return 1.0 if self.multiplier != 1.0 else self.inputs**-0.5

    def learning_rate(self, update: str) -> float:
        """The factor of its learning rate; `update` is "gradient", "entry" or "matrix"."""
        if update == "gradient":
            return self.outputs / self.inputs / self.multiplier**2
        if update == "entry":
            return self.branch / self.inputs / self.multiplier
        return (
            self.branch * (self.outputs / self.inputs / self.longer_side) ** 0.5 / self.multiplier
        )

    def weight_decay(self, update: str, decay: str) -> float:
        """The factor of its weight decay; `decay` is "weights" (shrinks them beside the update) or
        "gradient" (is added to it)."""
        if decay == "weights" or update == "gradient":
            return 1.0 / self.learning_rate(update)
        return self.branch * self.multiplier / self.outputs / self.spread


class Readout(nn.Linear, VocabularyTables):
    """A linear layer from features that grow with the width to outputs that do not: x -> multiplier
    * x W' + b, with the tensors of `layer`."""

    def __init__(self, layer: nn.Linear, multiplier: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.multiplier = multiplier
        self.TABLES = layer.TABLES if isinstance(layer, VocabularyTables) else ()

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input * self.multiplier, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, multiplier={self.multiplier:g}"


def parametrize(
    build: Callable[[], nn.Module], build_base: Callable[[], nn.Module], branch: float = 1.0
) -> nn.Module:
    """The module that `build` makes, scaled against the one of the same layers that `build_base`
    makes at the base width.

    `branch` is the factor of what each ResidualBranch adds. Random numbers are drawn for `build`
    alone. A WidensFrom sets factors of its own; a layer whose first weights do not follow the
    number of its inputs has their standard deviation as an attribute `spread`. The growth of each
    parameter is stored in the module's attribute `growths`, for `scale_groups`. Raises PartError
    for a layer that cannot be scaled.
    """
    module = build()
    with torch.random.fork_rng(devices=[]):
        base = build_base()
    growths: dict[str, WidthGrowth] = {}
    for name, layer in list(module.named_modules()):
        base_layer = base.get_submodule(name)
        if isinstance(layer, WidensFrom):
            layer.widen_from(base_layer)
        if isinstance(layer, ResidualBranch):
            layer.branch = branch
        layer_growths = {
            own: _growth(name, layer, own, parameter, base_layer)
            for own, parameter in layer.named_parameters(recurse=False)
        }
        _restart(layer, base_layer, layer_growths)
        if isinstance(layer, nn.Linear) and layer_growths["weight"].multiplier != 1.0:
            module = _replaced(module, name, Readout(layer, layer_growths["weight"].multiplier))
        growths |= {
            f"{name}.{own}" if name else own: growth for own, growth in layer_growths.items()
        }
    if branch != 1.0:
        growths = {
            name: _in_a_block(module, name, growth, branch) for name, growth in growths.items()
        }
    module.growths = {name: growth for name, growth in growths.items() if growth != WidthGrowth()}  # type: ignore[assignment]
    return module


def _growth(
    name: str, layer: nn.Module, own: str, parameter: Tensor, base_layer: nn.Module
) -> WidthGrowth:
    """How a layer's own parameter grew."""
    shape, base_shape = parameter.shape, getattr(base_layer, own).shape
    if shape == base_shape:
        return WidthGrowth()
    longer = max(shape[0], math.prod(shape[1:])) / max(base_shape[0], math.prod(base_shape[1:]))
    outputs, inputs = shape[0] / base_shape[0], math.prod(shape[1:]) / math.prod(base_shape[1:])
    if isinstance(layer, nn.Embedding):
        return WidthGrowth(outputs=inputs, inputs=outputs, longer_side=longer)
    if outputs == 1.0:
        if not isinstance(layer, nn.Linear):
            raise PartError(
                f"{name}.{own} maps features that grow with the width to features that do not, and "
                "is no linear layer."
            )
        return WidthGrowth(inputs=inputs, multiplier=1.0 / inputs, longer_side=longer)
    return WidthGrowth(outputs=outputs, inputs=inputs, longer_side=longer)


def _restart(layer: nn.Module, base_layer: nn.Module, growths: Mapping[str, WidthGrowth]) -> None:
    """Rescale the first weights to the standard deviation of muP, given the rule that the layer
    drew them by."""
    if "weight" not in growths or growths["weight"] == WidthGrowth():
        return
    relative = _spread(base_layer) / _spread(layer)
    with torch.no_grad():
        _multiply(layer.weight, growths["weight"].spread * relative)  # type: ignore[arg-type]
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.bias is not None:
            _multiply(layer.bias, relative)  # where it is drawn, by the number of inputs


def _spread(layer: nn.Module) -> float:
    """The standard deviation that a layer's weight was drawn with, up to a factor that does not
    depend on the width."""
    # an attribute, because embeddings of torch's own class have it too (padded_embedding)
    spread = getattr(layer, "spread", None)
    if spread is not None:
        return float(spread)
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        return math.prod(layer.weight.shape[1:]) ** -0.5
    return 1.0


def _multiply(tensor: Tensor, factor: float) -> None:
    if abs(factor - 1.0) > 1e-12:
        tensor.mul_(factor)


def _replaced(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """The module with another layer at `name`; the layer itself where the name is ""."""
    if not name:
        return layer
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
    return module


def _in_a_block(module: nn.Module, name: str, growth: WidthGrowth, branch: float) -> WidthGrowth:
    """The growth of a parameter, with the factor of the residual block that it is in."""
    words = name.split(".")
    around = "around" in words  # a block's way around its branch
    inside = not around and any(
        isinstance(module.get_submodule(".".join(words[:end])), ResidualBranch)
        for end in range(1, len(words))
    )
    return (
        WidthGrowth(growth.outputs, growth.inputs, growth.multiplier, branch, growth.longer_side)
        if inside
        else growth
    )


def _growths(module: nn.Module) -> Mapping[str, WidthGrowth]:
    """What `parametrize` keeps beside a module, which may be of any class; {} for all others."""
    return getattr(module, "growths", {})


def scale_groups(
    groups: Iterable[Mapping[str, Any]],
    module: nn.Module,
    *,
    optimizer: str,
    update: str | None,
    decay: str,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """The parameter groups, split by the factors of muP; unchanged where the module was not
    `parametrize`d.

    `update` and `decay` are what the optimizer's part says of itself (UPDATE, DECAY),
    `weight_decay` its option. The factors are stored as "learning_rate_scale" and
    "weight_decay_scale" of a group; its "weight_decay" is multiplied already. Raises PartError for
    an optimizer that does not say how it moves weights.
    """
    groups = [dict(group) for group in groups]
    growths = _growths(module)
    if not growths:
        return groups
    if update not in _UPDATES:
        raise PartError(
            f"optimizer {optimizer} does not say how long its update is (UPDATE), so "
            "parametrization: mup cannot scale it.",
            hint="choose another optimizer, or parametrization: standard",
        )
    named = dict(module.named_parameters())
    grown: dict[Tensor, WidthGrowth] = {
        named[name]: growth for name, growth in growths.items() if name in named
    }
    return [part for group in groups for part in _apart(group, grown, update, decay, weight_decay)]


def _apart(
    group: Mapping[str, Any],
    grown: Mapping[Tensor, WidthGrowth],
    update: str,
    decay: str,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """One group, split by the factors of its parameters."""
    by_factors: dict[tuple[float, float], list[Tensor]] = {}
    decayed = float(group.get("weight_decay", weight_decay))
    for parameter in group["params"]:
        growth = grown.get(parameter, WidthGrowth())
        moved = (
            update
            if update != "matrix" or (group.get("muon", True) and _is_matrix(parameter))
            else "entry"
        )
        factors = growth.learning_rate(moved), growth.weight_decay(moved, decay) if decayed else 1.0
        by_factors.setdefault(factors, []).append(parameter)
    groups = []
    for (rate, shrinking), parameters in sorted(by_factors.items(), key=lambda pair: pair[0]):
        part = {**group, "params": parameters}
        if rate != 1.0:
            part["learning_rate_scale"] = rate * group.get("learning_rate_scale", 1.0)
        if shrinking != 1.0:
            part |= {"weight_decay": decayed * shrinking, "weight_decay_scale": shrinking}
        groups.append(part)
    return groups


def _is_matrix(parameter: Tensor) -> bool:
    """Whether an optimizer of matrices (Muon) treats the parameter as one."""
    return parameter.ndim >= 2 and parameter.shape[0] >= 2 and math.prod(parameter.shape[1:]) >= 2


def multipliers(module: nn.Module, names: Iterable[str]) -> set[tuple[str, float]]:
    """(name, factor) of all factors of the forward pass that are not 1: of all ScalesForward
    layers, and of the readouts whose tensors are among `names`."""
    growths = _growths(module)
    readouts = {
        ("readout", growths[name].multiplier)
        for name in names
        if name in growths and growths[name].multiplier != 1.0
    }
    inside = [
        pair
        for layer in module.modules()
        if isinstance(layer, ScalesForward)
        for pair in layer.forward_multipliers().items()
    ]
    return readouts | {(attribute, value) for attribute, value in inside if value != 1.0}
