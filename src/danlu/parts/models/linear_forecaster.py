"""Linear forecaster for series (DLinear, N-Linear): each step ahead is a weighted sum of the past.

    y = W_trend m + W_rest (x - m) + others
    x: the normalised past of a variable; m: its moving average

  decompose: moving_average, level: none        DLinear
  decompose: none,           level: last        N-Linear
  decompose: none,           level: standard    RLinear (reversible instance normalization)

Other columns of the past, columns known in advance and static columns add linear terms. It is small
and fast, and often as accurate as large networks.
Sources: Zeng et al., 2022, arXiv:2205.13504; Kim et al., 2022 (openreview cGDAkQo1C0p); Li et al.,
2023, arXiv:2305.10721."""

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
GIVES = ("step",)
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 20,
    "train.batch_size": 64,
}


class Config(Options):
    """The variant of the linear forecaster."""

    decompose: Literal["moving_average", "none"] = Field(
        "moving_average",
        description="Separate weights for the moving average and the rest, or one set for the "
        "past.",
    )
    moving_average: int = Field(
        25, ge=2, le=10_000, description="Time steps of the moving average."
    )
    level: Literal["standard", "last", "none"] = Field(
        "standard",
        description="Normalise each window by its mean and standard deviation, by its last "
        "value, or not.",
    )
    shared: bool = Field(
        True, description="One set of weights for all variables; false: one per variable."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no series."""
    from danlu.parts.models._linear_forecaster import LinearForecast

    if "series" not in inputs:
        raise PartError(
            "linear_forecaster continues a series, and the inputs hold none.",
            hint="choose task: forecasting, or model: mlp",
        )
    smooth = config.moving_average if config.decompose == "moving_average" else None
    return LinearForecast(inputs, output, smooth=smooth, level=config.level, shared=config.shared)
