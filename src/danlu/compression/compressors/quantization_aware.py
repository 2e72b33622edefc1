"""Quantization-aware training: some epochs with the rounding of int8_static, then static int8.

The forward pass rounds weights and inputs as int8_static will; the gradient ignores the rounding
(the straight-through estimator, danlu/layers/quantization/fake_quant.py). The ranges are set by
training rows before and stay fixed. Batch normalizations are folded first. Training is the recipe's
own loop from the artifact's weights, in float32, at a share of its learning rate.

torchao's quantization-aware training covers linear layers with inputs rounded per row, or exported
programs that are compiled afterwards. This one changes the layers themselves, convolutions too, and
ends in the scales it trained with.
Source: Jacob et al., 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

TRAINS = True

ROUNDS = True


class Config(Options):
    """How long, how fast, and which layers."""

    epochs: float = Field(2.0, gt=0, le=1e6, description="Passes over the training rows.")
    learning_rate: float = Field(
        0.1, gt=0, le=100, description="Share of the recipe's learning rate."
    )
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
    """Fold, calibrate, train, replace. PartError where no layer is large enough."""
    from danlu.layers.quantization.fake_quant import FakeQuantizedLayer, restore_plain_layers
    from danlu.layers.quantization.static import calibrate, fold_batch_norms, replace_layers
    from danlu.recipe import as_plain

    module = subject.module
    plan = fold_batch_norms(module)
    observed = calibrate(
        subject,
        layers=config.layers,
        spare=config.spare,
        rows=config.rows,
        smallest=config.smallest,
        who="quantization_aware",
    )
    codes = {name: statistics.scale_and_zero_point() for name, statistics in observed.items()}
    for name, scales in codes.items():
        module.set_submodule(name, FakeQuantizedLayer(module.get_submodule(name), *scales))
    record = [*subject.contents.changes]

    def finalize(trained: nn.Module) -> None:
        restore_plain_layers(trained)
        state = {"fold": plan, **replace_layers(trained, codes)}
        record.append({"name": "quantization_aware", "options": as_plain(config), "state": state})

    trained_artifact = subject.train(
        module,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        finalize=finalize,
        record=record,
        extra_inputs=["quantization_aware", as_plain(config), codes],
        changes={"train.precision": "float32"},
    )
    subject.module = trained_artifact.module
    return trained_artifact.changes[-1]["state"]


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Fold and replace the same layers."""
    from danlu.layers.quantization.static import restore

    restore(module, state)
