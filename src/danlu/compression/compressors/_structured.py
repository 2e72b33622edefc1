"""Structured pruning: remove hidden units and channels that exactly one other layer reads.

A group holds the layers that compute such units (one layer, or the two halves of a gated
feed-forward), the normalisations behind them, and the layer that reads them. `spread` is the number
of inputs of the reading layer that belong to one unit: 1, or the pixels of a channel where an image
was flattened."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.layers.selection import ELEMENTWISE, convolutions, linear_layers, select_layers, unshared
from danlu.layers.transformer.feed_forward import FeedForward

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_BY_CHANNEL = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)


@dataclass(frozen=True)
class Group:
    """Names of layers that are made narrower together.

    makers   the layers that compute the units; `name` is the first of them
    norms    the normalisations between them and the reader
    reader   the layer that reads the units
    spread   how many inputs of the reader belong to one unit"""

    makers: tuple[str, ...]
    norms: tuple[str, ...]
    reader: str
    spread: int = 1

    @property
    def name(self) -> str:
        return self.makers[0]


def groups(module: nn.Module, only: Sequence[str] | None, spare: Sequence[str]) -> list[Group]:
    """The groups of a module whose makers match a pattern of `only` (None: all groups), and no
    pattern of the layers to spare."""
    layers = {
        name: layer
        for name, layer in unshared(
            module, {**convolutions(module), **linear_layers(module)}
        ).items()
        if isinstance(layer, nn.Linear)
        or (isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1)
    }
    makers = select_layers(layers, only, spare, "prune")
    candidates = []
    for name, layer in module.named_modules():
        before = f"{name}." if name else ""
        if type(layer) is nn.Sequential:
            candidates += _in_a_row(before, layer, layers)
        elif isinstance(layer, FeedForward):
            halves = [f"{before}up", *([f"{before}gate"] if layer.gate is not None else [])]
            if all(part in layers for part in [*halves, f"{before}down"]):
                candidates.append(Group(tuple(halves), (), f"{before}down"))
    return [group for group in candidates if all(maker in makers for maker in group.makers)]


def _in_a_row(before: str, row: nn.Sequential, layers: Mapping[str, nn.Module]) -> list[Group]:
    candidates = []
    inside = [(before + name, layer) for name, layer in row.named_children()]
    for index, (maker, layer) in enumerate(inside):
        if maker not in layers:
            continue
        norms: list[str] = []
        flat = isinstance(layer, nn.Linear)
        for name, after in inside[index + 1 :]:
            if name in layers:
                group = _group(maker, layer, tuple(norms), name, after, flat)
                candidates += [group] if group is not None else []
                break
            if isinstance(after, _NORMS):
                norms.append(name)
            elif (
                isinstance(after, nn.Flatten)
                and not isinstance(layer, nn.Linear)
                and after.start_dim == 1
            ):
                flat = True
            elif not isinstance(after, (*ELEMENTWISE, *_BY_CHANNEL)):
                break
    return candidates


def _group(
    maker: str, layer: nn.Module, norms: tuple[str, ...], name: str, reader: nn.Module, flat: bool
) -> Group | None:
    if isinstance(reader, nn.Linear):
        width = _width(layer)
        return (
            Group((maker,), norms, name, reader.in_features // width)
            if flat and reader.in_features % width == 0
            else None
        )
    return Group((maker,), norms, name) if not flat and type(reader) is type(layer) else None


def width_of(module: nn.Module, group: Group) -> int:
    """The number of units of a group."""
    return _width(module.get_submodule(group.name))


def best(module: nn.Module, group: Group, share: float, multiple: int) -> Tensor | None:
    """The indices of the units that stay: int64, ascending, their number a multiple of `multiple`;
    None where no unit would be removed."""
    width = width_of(module, group)
    stay = max(multiple, round((1 - share) * width / multiple) * multiple)
    if stay >= width:
        return None
    with torch.no_grad():
        worth = torch.ones(width)
        for name in group.makers:
            worth = worth * _weight(module, name).flatten(1).norm(dim=1)
        for name in group.norms:
            norm = module.get_submodule(name)
            assert isinstance(norm, _NORMS)
            if norm.weight is not None and norm.running_var is not None:
                worth = worth * (norm.weight.abs() * torch.rsqrt(norm.running_var + norm.eps))
        reader = _weight(module, group.reader).transpose(0, 1).flatten(1)
        worth = worth * reader.reshape(width, -1).norm(dim=1)
    return torch.argsort(worth, descending=True, stable=True)[:stay].sort().values


def narrow(module: nn.Module, candidates: Sequence[Group], kept: Mapping[str, Tensor]) -> None:
    """Remove the other units of every group that `kept` names; `kept` holds the indices that
    stay."""
    for group in candidates:
        if group.name not in kept:
            continue
        units = kept[group.name]
        for name in group.makers:
            _keep_outputs(module.get_submodule(name), units)
        for name in group.norms:
            _keep_features(module.get_submodule(name), units)
        inputs = (units[:, None] * group.spread + torch.arange(group.spread)).flatten()
        _keep_inputs(module.get_submodule(group.reader), inputs)


def _width(layer: nn.Module) -> int:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.shape[0]


def _weight(module: nn.Module, name: str) -> Tensor:
    weight = module.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _keep_outputs(layer: nn.Module, units: Tensor) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    layer.weight = _some(layer.weight, units, 0)
    layer.bias = None if layer.bias is None else _some(layer.bias, units, 0)  # type: ignore[assignment]
    if isinstance(layer, nn.Linear):
        layer.out_features = len(units)
    else:
        layer.out_channels = len(units)


def _keep_inputs(layer: nn.Module, units: Tensor) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    layer.weight = _some(layer.weight, units, 1)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(units)
    else:
        layer.in_channels = len(units)


def _keep_features(norm: nn.Module, units: Tensor) -> None:
    assert isinstance(norm, _NORMS)
    norm.num_features = len(units)
    if norm.weight is not None:
        norm.weight, norm.bias = _some(norm.weight, units, 0), _some(norm.bias, units, 0)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean, norm.running_var = (
            norm.running_mean[units].clone(),
            norm.running_var[units].clone(),
        )


def _some(parameter: Tensor, units: Tensor, axis: int) -> nn.Parameter:
    return nn.Parameter(
        parameter.detach().index_select(axis, units).contiguous(),
        requires_grad=parameter.requires_grad,
    )
