"""Convolutions and linear layers in 8 bits, inputs too: the fastest on CPUs with VNNI.

Batch normalizations are folded into the layers before them. The range of a layer's inputs is set by
training rows (danlu/layers/quantization/calibration.py), and clipped where rounding all of it would
cost more. An activation that follows is fused, and layers that follow each other pass codes on.
Layers so small that a call of the kernel costs more than they do stay float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

ROUNDS = True


class Config(Options):
    """Which layers, and how their ranges are found."""

    rows: int = Field(512, ge=1, le=1_000_000, description="Training rows that set the ranges.")
    layers: list[str] | None = Field(
        None,
        description="Layers, by name (* for anything); null: every convolution and linear layer.",
    )
    spare: list[str] = Field([], description="Layers that stay float32, by name (* for anything).")
    smallest: int = Field(
        16_384,
        ge=1,
        description="Layers of fewer weights, and fewer than 64 times as many multiplications per "
        "row, stay float32.",
    )


def compress(config: Config, subject: Subject) -> CompressorState:
    """Fold, calibrate, replace. PartError where no layer is large enough."""
    from danlu.layers.quantization.static import calibrate, fold_batch_norms, replace_layers

    plan = fold_batch_norms(subject.module)
    observed = calibrate(
        subject,
        layers=config.layers,
        spare=config.spare,
        rows=config.rows,
        smallest=config.smallest,
        who="int8_static",
    )
    codes = {name: statistics.scale_and_zero_point() for name, statistics in observed.items()}
    return {"fold": plan, **replace_layers(subject.module, codes)}


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Fold and replace the same layers."""
    from danlu.layers.quantization.static import restore

    restore(module, state)
