"""Linear layers in 8 bits; their inputs are rounded row by row at prediction. Needs no data.

Weights are multiples of 1/127 of the largest weight of their output, inputs of the largest input of
their row; products are sums of integers. A prediction does not depend on the other rows of a batch,
as it would with one scale per batch (torch's own dynamic quantization)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

ROUNDS = True


class Config(Options):
    """Which layers."""

    layers: list[str] | None = Field(
        None, description="Layers, by name (* for anything); null: every linear layer."
    )
    spare: list[str] = Field([], description="Layers that stay float32, by name (* for anything).")
    smallest: int = Field(
        4096,
        ge=1,
        description="Layers of fewer weights stay float32: rounding their inputs costs more than "
        "the layers themselves.",
    )


def compress(config: Config, subject: Subject) -> CompressorState:
    """Replace linear layers. PartError where there is none of the size."""
    from danlu.layers.selection import large_matrices

    instead = "int8_weight_only, which keeps other layers too"
    alone = large_matrices(
        config, "int8_dynamic", subject.module, subject.family, subject.notes, instead
    )
    state = {"layers": list(alone)}
    replay(config, state, subject.module)
    return state


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Replace the layers named."""
    from danlu.layers.quantization.int8 import DynamicInt8Linear, weight_matrix
    from danlu.layers.selection import layer_of_kind, linear_layers

    for name in state["layers"]:
        layer = layer_of_kind(module, name, linear_layers)
        module.set_submodule(name, DynamicInt8Linear(weight_matrix(layer), layer.bias))  # type: ignore[arg-type]
