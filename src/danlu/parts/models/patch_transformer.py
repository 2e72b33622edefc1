"""Transformer over patches of a series (PatchTST): a token is a time span of one variable.

Every variable goes through the same network separately (channel independence), normalised per
window. Other columns are part of its patches; columns known in advance follow in patches of their
own. All tokens, concatenated, give all steps ahead at once.
Source: Nie et al., 2022, arXiv:2211.14730.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

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
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 10,
    "train.batch_size": 64,
}


class Config(Options):
    """The patches, and the size of the Transformer."""

    patch: int = Field(16, ge=1, le=10_000, description="Moments in a patch.")
    stride: int = Field(
        8, ge=1, le=10_000, description="Time steps from the start of a patch to that of the next."
    )
    width: int = Field(32, ge=1, le=8192, description="Numbers of a token.")
    num_layers: int = Field(2, ge=1, le=1000, description="Transformer blocks.")
    num_heads: int = Field(4, ge=1, le=1024, description="Attention heads; they divide the width.")
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Dropout of each half of a block.",
    )
    head_dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Dropout of tokens before the output layer.",
    )
    level: Literal["standard", "last", "none"] = Field(
        "standard",
        description="Normalise each window by its mean and standard deviation, by its last "
        "value, or not.",
    )
    linear: bool = Field(
        False,
        description="Add a linear forecast, so that the network only learns its residual.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Config:
        if self.width % self.num_heads:
            raise ValueError(
                f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})"
            )
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no series."""
    from danlu.layers.forecasting.forecaster import BodySizes, Forecaster
    from danlu.layers.transformer.blocks import StackSizes as StackSizes
    from danlu.parts.models._patch_transformer import PatchForecast, PatchSummary

    if "series" not in inputs:
        raise PartError(
            "patch_transformer reads a series, and the inputs hold none.",
            hint="choose task: forecasting",
        )
    stack = StackSizes(config.num_layers, config.width, config.num_heads, dropout=config.dropout)
    if output.per == "row":
        moments, channels = inputs["series"].shape
        static = inputs["numbers"].shape[0] if "numbers" in inputs else 0
        return PatchSummary(
            BodySizes(moments, channels, 0, static, 0, output.size),
            config.patch,
            config.stride,
            stack,
        )
    return Forecaster(
        inputs,
        output,
        lambda sizes: PatchForecast(sizes, config.patch, config.stride, stack, config.head_dropout),
        level=config.level,
        linear=config.linear,
    )
