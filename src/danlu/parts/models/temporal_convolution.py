"""Temporal convolutional network (TCN) for series: causal convolutions of dilation 1, 2, 4, ...

It has as many blocks as the last time step needs to see the whole window. A linear forecast is
added, so that the network only learns its residual.
Sources: Bai et al., 2018, arXiv:1803.01271; Das et al., 2023, arXiv:2304.08424 (the linear
forecast).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "series")
NEEDS = ("series",)
GIVES = ("row", "step")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 10,
    "train.batch_size": 64,
}


class Config(Options):
    """The size of the network, and whether variables are mixed."""

    width: int = Field(32, ge=1, le=8192, description="Channels of every block.")
    kernel: int = Field(3, ge=2, le=999, description="Kernel size of the convolutions.")
    num_layers: int | None = Field(
        None, ge=1, le=30, description="Blocks; null: as many as needed to see the whole window."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of activations.")
    level: Literal["standard", "last", "none"] = Field(
        "standard",
        description="Normalise each window by its mean and standard deviation, by its last "
        "value, or not.",
    )
    mix: bool = Field(
        True,
        description="Mix variables; false: each goes through the same network separately.",
    )
    linear: bool = Field(True, description="Add a linear forecast to that of the network.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no series."""
    from danlu.layers.forecasting.forecaster import Forecaster
    from danlu.parts.models._temporal_convolution import (
        TemporalForecast,
        TemporalSummary,
        layers_to_see,
    )

    if "series" not in inputs:
        raise PartError(
            "temporal_convolution reads a series, and the inputs hold none.",
            hint="choose task: forecasting",
        )
    if output.per == "row":
        moments, channels = inputs["series"].shape
        static = inputs["numbers"].shape[0] if "numbers" in inputs else 0
        layers = config.num_layers or layers_to_see(moments, config.kernel)
        return TemporalSummary(
            channels,
            static,
            output.size,
            width=config.width,
            kernel=config.kernel,
            layers=layers,
            dropout=config.dropout,
        )
    return Forecaster(
        inputs,
        output,
        lambda sizes: TemporalForecast(
            sizes,
            width=config.width,
            kernel=config.kernel,
            layers=config.num_layers,
            dropout=config.dropout,
        ),
        level=config.level,
        mix=config.mix,
        linear=config.linear,
    )
