"""Which layers of a model can be made smaller, by name; and how they follow each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from danlu.errors import PartError
from danlu.layers.peft.lora import adaptable

_LISTED = 6
ELEMENTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout)


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Layers that do nothing but multiply by a matrix."""
    return {
        name: layer
        for name, layer in adaptable(module).items()
        if isinstance(layer.weight, nn.Parameter)
    }


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """Convolutions over one or two dimensions, padded with zeros by a number."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) in (nn.Conv1d, nn.Conv2d)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)  # type: ignore[union-attr]
    }


def tables(module: nn.Module) -> dict[str, nn.Module]:
    """Embeddings."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Embedding and layer.max_norm is None
    }


def unshared(module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those layers whose weight belongs to them alone."""
    holders = Counter(id(each) for _, each in module.named_parameters(remove_duplicate=False))
    return {name: layer for name, layer in layers.items() if holders[id(layer.weight)] == 1}


def among(
    layers: Mapping[str, nn.Module], only: Sequence[str] | None, spare: Sequence[str], where: str
) -> dict[str, nn.Module]:
    """The layers that patterns name (`only`; None: all) without those that others name (`spare`).
    PartError for a pattern nobody fits."""
    chosen = (
        layers
        if only is None
        else {
            name: layers[name]
            for pattern in only
            for name in named(layers, pattern, f"{where}.layers")
        }
    )
    spared = {name for pattern in spare for name in named(layers, pattern, f"{where}.spare")}
    return {name: layer for name, layer in chosen.items() if name not in spared}


def large_matrices(
    config: Any, name: str, module: nn.Module, family: str, told: list[str], instead: str
) -> dict[str, nn.Module]:
    """The linear layers that `config` (layers, spare, smallest) of compressor `name` names, large
    and with a matrix of their own; how many others there are is told. PartError, with `instead` as
    remedy, where there is none."""
    layers = among(linear_layers(module), config.layers, config.spare, name)
    alone = unshared(
        module, {each: layer for each, layer in layers.items() if size_of(layer) >= config.smallest}
    )
    if not alone:
        raise PartError(
            f"{name} finds no linear layer of {config.smallest:,} weights or more in this {family}.",
            hint=f"set smallest lower, or take {instead}" if layers else f"take {instead}",
        )
    if len(alone) < len(layers):
        told.append(
            f"{len(layers) - len(alone)} linear layers stay float32: small, or their matrix is shared."
        )
    return alone


def named(names: Iterable[str], pattern: str, where: str) -> list[str]:
    """The names that a pattern fits, as a whole or from one of their words on. PartError where
    there is none."""
    names = list(names)
    found = [
        name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    ]
    if not found:
        listed = ", ".join(names[:_LISTED]) + (
            f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        )
        raise PartError(
            f"{where} names {pattern}, and no layer that it could be is called so.",
            hint=f"there are {listed or 'none'}",
        )
    return found


def matrix_at(
    module: nn.Module, name: str, kinds: Callable[[nn.Module], dict[str, nn.Module]]
) -> nn.Module:
    """The layer of that name and kind. ValueError where there is none."""
    layers = kinds(module)
    if name not in layers:
        raise ValueError(f"{name} is no layer that can be changed so")
    return layers[name]


def size_of(layer: nn.Module) -> int:
    """How many numbers its weight holds."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.numel()
