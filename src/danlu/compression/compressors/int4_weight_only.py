"""Linear layers in 4 bits a weight: an eighth of the size. For large matrices, as in Transformers.

Each group of `group` inputs of an output has its own scale and zero point; two codes share a byte.
This uses torch's own kernel: torchao's int4 takes a byte per code on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

ROUNDS = True


class Config(Options):
    """Which layers, how finely, and how they are multiplied by."""

    layers: list[str] | None = Field(
        None, description="Layers, by name (* for anything); null: every linear layer."
    )
    spare: list[str] = Field([], description="Layers that stay float32, by name (* for anything).")
    smallest: int = Field(4096, ge=1, description="Layers of fewer weights stay float32.")
    group: Literal[32, 64, 128, 256] = Field(
        32, description="Inputs that share a scale: fewer are closer, and cost more room."
    )
    products: Literal["bfloat16", "float32"] = Field(
        "bfloat16",
        description="Format of products: bfloat16 is fast where few rows are predicted at a time, "
        "float32 keeps every digit of inputs.",
    )


def compress(config: Config, subject: Subject) -> CompressorState:
    """Replace linear layers. PartError where there is none of the size."""
    from danlu.layers.selection import large_matrices

    instead = "int8_weight_only, which keeps other layers too"
    alone = large_matrices(
        config, "int4_weight_only", subject.module, subject.family, subject.notes, instead
    )
    state = {"layers": list(alone)}
    replay(config, state, subject.module)
    return state


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Replace the layers named."""
    from danlu.layers.quantization.weight_only import Int4WeightOnlyLinear
    from danlu.layers.selection import layer_of_kind, linear_layers

    for name in state["layers"]:
        module.set_submodule(
            name,
            Int4WeightOnlyLinear(
                layer_of_kind(module, name, linear_layers), config.group, config.products
            ),
        )
