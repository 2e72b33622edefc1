"""Selecting layers of a model by kind and name pattern, for compressors and adapters.

A layer is selected by its full name in the module tree ("stack.blocks.0.attention.query"). A
pattern is a shell pattern (*, ?, [abc]) for the full name or for its last words: "query" and
"attention.*" both match the layer above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from torch import Tensor, nn

from danlu.errors import PartError

_LISTED = 6
ELEMENTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout)


class LayerOptions(Protocol):
    """The options of a compressor that replaces linear layers."""

    @property
    def layers(self) -> Sequence[str] | None:
        """Patterns of the layers to replace; None: all of them."""
        ...

    @property
    def spare(self) -> Sequence[str]:
        """Patterns of the layers to leave as they are."""
        ...

    @property
    def smallest(self) -> int:
        """Layers of fewer weights are left as they are."""
        ...


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer computes x W' + b and nothing else: nn.Linear, or a subclass that keeps its
    forward.

    >>> is_linear(nn.Linear(2, 3)), is_linear(nn.ReLU())
    (True, False)
    """
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def is_conv1d(layer: nn.Module) -> bool:
    """Whether a layer is Conv1D of transformers, GPT-2's linear layer with a weight (inputs,
    outputs). Told by name, because transformers is an optional library."""
    kind = type(layer)
    return kind.__name__ == "Conv1D" and kind.__module__.split(".")[0] == "transformers"


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that multiply by a matrix of float parameters and do nothing else, by name.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0', '2']
    """
    return {
        name: layer
        for name, layer in module.named_modules()
        if (is_linear(layer) or is_conv1d(layer)) and isinstance(layer.weight, nn.Parameter)
    }


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """The convolutions over one or two dimensions, by name, that are padded with zeros by a number
    of places (not by "same")."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) in (nn.Conv1d, nn.Conv2d)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)  # type: ignore[union-attr]
    }


def embeddings(module: nn.Module) -> dict[str, nn.Module]:
    """The embeddings without a limit on their norm, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Embedding and layer.max_norm is None
    }


def unshared(module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those of `layers` whose weight no other layer of the module uses (an output layer tied to an
    embedding shares its weight)."""
    uses = Counter(
        id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)
    )
    return {name: layer for name, layer in layers.items() if uses[id(layer.weight)] == 1}


def select_layers(
    layers: Mapping[str, nn.Module], only: Sequence[str] | None, spare: Sequence[str], where: str
) -> dict[str, nn.Module]:
    """The layers that match a pattern of `only` (None: all of them) and no pattern of `spare`.

    `where` names the part whose options the patterns are. Raises PartError for a pattern that
    matches no layer.
    """
    chosen = (
        layers
        if only is None
        else {
            name: layers[name]
            for pattern in only
            for name in matching_names(layers, pattern, f"{where}.layers")
        }
    )
    spared = {
        name for pattern in spare for name in matching_names(layers, pattern, f"{where}.spare")
    }
    return {name: layer for name, layer in chosen.items() if name not in spared}


def large_matrices(
    options: LayerOptions,
    compressor: str,
    module: nn.Module,
    family: str,
    notes: list[str],
    instead: str,
) -> dict[str, nn.Module]:
    """The linear layers that `options` select, have at least options.smallest weights and share
    their matrix with no other layer.

    How many selected layers are left out is added to `notes` as a sentence. Raises PartError where
    no layer remains; its remedy names `instead`, another compressor.
    """
    layers = select_layers(linear_layers(module), options.layers, options.spare, compressor)
    large = {
        name: layer for name, layer in layers.items() if weight_count(layer) >= options.smallest
    }
    usable = unshared(module, large)
    if not usable:
        raise PartError(
            f"{compressor} finds no linear layer of {options.smallest:,} weights or more in this "
            f"{family}.",
            hint=f"set smallest lower, or take {instead}" if layers else f"take {instead}",
        )
    if len(usable) < len(layers):
        notes.append(
            f"{len(layers) - len(usable)} linear layers stay float32: they are small, or share "
            "their matrix."
        )
    return usable


def matching_names(names: Iterable[str], pattern: str, where: str) -> list[str]:
    """The names that match a pattern, in full or from one of their words on. Raises PartError where
    none does; `where` names the option that the pattern comes from.

    >>> matching_names(["body.0.query", "body.0.key"], "query", "lora.layers")
    ['body.0.query']
    """
    names = list(names)
    matches = [
        name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    ]
    if not matches:
        listed = ", ".join(names[:_LISTED]) + (
            f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        )
        raise PartError(
            f"{where} names {pattern}, and no layer that could be changed has a name like it.",
            hint=f"there are {listed or 'none'}",
        )
    return matches


def layer_of_kind(
    module: nn.Module, name: str, kinds: Callable[[nn.Module], dict[str, nn.Module]]
) -> nn.Module:
    """The layer called `name` among those that `kinds(module)` selects. Raises ValueError where it
    is not one of them."""
    layers = kinds(module)
    if name not in layers:
        raise ValueError(f"{name} is no layer that can be changed in this way")
    return layers[name]


def weight_count(layer: nn.Module) -> int:
    """How many numbers a layer's weight holds.

    >>> weight_count(nn.Linear(4, 3))
    12
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.numel()
