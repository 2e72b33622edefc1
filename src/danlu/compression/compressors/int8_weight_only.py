"""Weights in 8 bits, computation in floating point: a quarter of the size, less memory to read.

Linear layers and embeddings have 8-bit weights in memory too. Layers without such a product
(recurrent ones, convolutions, a shared matrix) are rounded and stored in 8 bits, and become float32
when the artifact is read."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

ROUNDS = True


class Config(Options):
    """Which layers, and how they are multiplied by."""

    layers: list[str] | None = Field(
        None,
        description="Linear layers and embeddings, by name (* for anything); null: all, and "
        "weights of other layers.",
    )
    spare: list[str] = Field(
        [], description="Linear layers and embeddings that stay float32, by name (* for anything)."
    )
    smallest: int = Field(1024, ge=1, description="Layers of fewer weights stay float32.")
    products: Literal["bfloat16", "float32"] = Field(
        "bfloat16",
        description="Format of products: bfloat16 is fast where few rows are predicted at a time, "
        "float32 keeps every digit of inputs.",
    )


def compress(config: Config, subject: Subject) -> CompressorState:
    """Replace linear layers and embeddings, round all else. PartError where nothing is of the
    size."""
    from danlu.errors import PartError
    from danlu.layers.selection import embeddings, linear_layers, select_layers, weight_count

    module = subject.module
    layers = select_layers(
        linear_layers(module) | embeddings(module), config.layers, config.spare, "int8_weight_only"
    )
    large = {
        name: layer for name, layer in layers.items() if weight_count(layer) >= config.smallest
    }
    kept = [name for name, layer in large.items() if _alone_or_tied(module, layer)]
    state: dict[str, Any] = {"layers": kept}
    replay(config, state, module)
    spared = (
        [name for name in {**linear_layers(module), **embeddings(module)} if name not in kept]
        if config.spare
        else []
    )
    stored = _round_rest(module, config.smallest, spared) if config.layers is None else []
    if not kept and not stored:
        raise PartError(
            f"int8_weight_only finds no matrix of {config.smallest:,} weights or more in this "
            f"{subject.family}.",
            hint="set smallest lower",
        )
    return {**state, **({"stored": dict.fromkeys(stored, "int8")} if stored else {})}


def _alone_or_tied(module: nn.Module, layer: nn.Module) -> bool:
    """A weight that one layer alone holds; where an output layer reads a table as its own matrix it
    does so by that table's product."""
    from danlu.layers.selection import unshared

    return bool(unshared(module, {"": layer}))


def _round_rest(module: nn.Module, smallest: int, spared: list[str]) -> list[str]:
    """Round every matrix of float32 that is left; returns their names."""
    import torch

    from danlu.layers.quantization.int8 import dequantize, quantize

    names = []
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if (
                parameter.ndim >= 2
                and parameter.numel() >= smallest
                and parameter.dtype == torch.float32
            ):
                if any(name.startswith(f"{prefix}.") for prefix in spared):
                    continue
                parameter.copy_(dequantize(*quantize(parameter)))
                names.append(name)
    return names


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Replace the layers named."""
    from torch import nn

    from danlu.layers.quantization.weight_only import Int8WeightOnlyEmbedding, Int8WeightOnlyLinear
    from danlu.layers.selection import embeddings, layer_of_kind, linear_layers

    for name in state["layers"]:
        layer = layer_of_kind(
            module, name, lambda tree: {**linear_layers(tree), **embeddings(tree)}
        )
        kept = (
            Int8WeightOnlyEmbedding(layer, config.products)
            if isinstance(layer, nn.Embedding)
            else Int8WeightOnlyLinear(layer, config.products)
        )
        module.set_submodule(name, kept)
