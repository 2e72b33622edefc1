"""Pruning: the least important weights are removed, then some epochs of training without them.

method: magnitude    the smallest weights become 0, over the whole model or in each layer. The
                     artifact gets smaller (zeros are written as a bitmap); the model is as fast as
                     before.
method: structured   whole hidden units and channels are removed, where one layer alone reads the
                     outputs of another: inside feed-forward layers, and between neighbours in an
                     nn.Sequential (a perceptron, a residual block). The model gets smaller and
                     faster. The importance of a unit is the product of the lengths of its incoming
                     and outgoing weights.
Sources: Han et al., 2015, arXiv:1506.02626 (magnitude, and training on); Li et al., 2017,
arXiv:1608.08710 (channels)."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.compression.compressors._base import CompressorState, Subject

TRAINS = True


class Config(Options):
    """What is taken out, how much, and how it is made up for."""

    share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of weights (magnitude) or of hidden units and channels (structured) "
        "taken out.",
    )
    method: Literal["magnitude", "structured"] = Field(
        "magnitude", description="Single weights, or whole hidden units and channels."
    )
    scope: Literal["global", "layer"] = Field(
        "global",
        description="Which weights are compared: those of all layers, or of each layer alone "
        "(magnitude).",
    )
    epochs: float = Field(
        2.0, ge=0, le=1e6, description="Passes over the training rows after it; 0: none."
    )
    learning_rate: float = Field(
        0.3, gt=0, le=100, description="Share of the recipe's learning rate."
    )
    layers: list[str] | None = Field(
        None,
        description="Layers, by name (* for anything); null: every convolution and linear layer.",
    )
    spare: list[str] = Field([], description="Layers that stay whole, by name (* for anything).")
    multiple: int = Field(
        8,
        ge=1,
        le=1024,
        description="Hidden units and channels that stay are a multiple of it (structured).",
    )

    @model_validator(mode="after")
    def _options_of_the_method(self) -> Config:
        if self.method == "structured" and self.scope != "global":
            raise ValueError("scope belongs to method: magnitude")
        return self


def compress(config: Config, subject: Subject) -> CompressorState:
    """Take out, train on. PartError where there is nothing that can be taken out."""
    return (
        _structured(config, subject)
        if config.method == "structured"
        else _magnitude(config, subject)
    )


def _magnitude(config: Config, subject: Subject) -> CompressorState:
    from torch import Tensor

    from danlu.errors import PartError
    from danlu.layers.quantization.fake_quant import MaskedLayer, restore_plain_layers
    from danlu.layers.quantization.static import convolutions_and_linear_layers
    from danlu.layers.selection import select_layers, unshared

    module = subject.module
    layers = unshared(
        module,
        select_layers(convolutions_and_linear_layers(module), config.layers, config.spare, "prune"),
    )
    if not layers:
        raise PartError(
            f"prune finds no convolution or linear layer in this {subject.family}.",
            hint="int8_weight_only keeps other layers smaller",
        )
    weights = {
        name: layer.weight for name, layer in layers.items() if isinstance(layer.weight, Tensor)
    }
    for name, mask in _masks(weights, config).items():
        module.set_submodule(name, MaskedLayer(layers[name], mask))
    if config.epochs:
        subject.train_changed(config, "prune", {}, module, finalize=restore_plain_layers)
    else:
        restore_plain_layers(module)
    return {}


def _masks(weights: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """1 where a weight stays."""
    import torch

    sizes = {name: weight.detach().abs() for name, weight in weights.items()}
    groups = [list(sizes)] if config.scope == "global" else [[name] for name in sizes]
    masks = {}
    for group in groups:
        flat = torch.cat([sizes[name].flatten() for name in group])
        out = torch.zeros(len(flat), dtype=torch.bool)
        out[torch.argsort(flat, stable=True)[: round(config.share * len(flat))]] = True
        for name, piece in zip(group, out.split([sizes[name].numel() for name in group])):
            masks[name] = ~piece.view(sizes[name].shape)
    return masks


def _structured(config: Config, subject: Subject) -> CompressorState:
    from danlu.compression.compressors._structured import best, groups, narrow
    from danlu.errors import PartError

    module = subject.module
    unit_groups = groups(module, config.layers, config.spare)
    kept = {group.name: best(module, group, config.share, config.multiple) for group in unit_groups}
    kept = {name: units for name, units in kept.items() if units is not None}
    if not kept:
        raise PartError(
            f"prune: structured finds no layer in this {subject.family} whose units one layer "
            "alone reads, and that is wide enough.",
            hint="take method: magnitude, or low_rank",
        )
    narrow(module, unit_groups, kept)
    state = {"widths": {name: len(units) for name, units in kept.items()}}
    if config.epochs:
        subject.train_changed(config, "prune", state, module)
    return state


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Make the same layers as narrow; single weights that are 0 need nothing."""
    import torch

    from danlu.compression.compressors._structured import groups, narrow, width_of

    widths = state.get("widths", {})
    unit_groups = {group.name: group for group in groups(module, None, [])} if widths else {}
    for name, width in widths.items():
        if type(width) is not int or not 0 < width <= width_of(module, unit_groups[name]):
            raise ValueError(f"{name} cannot be made {width} wide")
    narrow(
        module,
        list(unit_groups.values()),
        {name: torch.arange(width) for name, width in widths.items()},
    )
