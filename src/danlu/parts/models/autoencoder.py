"""Autoencoder: compresses a row to a few numbers, the code, and reconstructs the row from them.

Numbers, or a window of a series: dense layers of the sizes `hidden` to the code, and the same in
reverse. An image (at least 8x8): convolutions that halve it until its shorter side has 4 to 7
pixels, a linear layer to the code, and the same in reverse.
Source: Hinton and Salakhutdinov, 2006, doi.org/10.1126/science.1127647.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "image", "series")
GIVES = ("row", "image", "moment")
DEFAULTS = {
    "optimizer": {"name": "adam", "learning_rate": 0.003},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 20,
    "train.batch_size": 128,
}


class Config(Options):
    """The sizes of encoder and decoder."""

    code: int = Field(16, ge=1, le=65_536, description="Size of the code.")
    hidden: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        [128, 64],
        max_length=20,
        description="Sizes of the layers before the code, mirrored after it (numbers, series).",
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "gelu", description="Activation between layers (numbers, series)."
    )
    width: int = Field(
        32,
        ge=1,
        le=2048,
        description="Channels at half the image's size; doubled at each further halving (images).",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError unless there is one input, and the output is its reconstruction."""
    from danlu.layers.vision.dcgan import SMALLEST
    from danlu.parts.models._autoencoder import (
        Autoencoder,
        WindowAutoencoder,
        of_images,
        of_numbers,
    )

    if len(inputs) != 1:
        raise PartError(
            f"autoencoder takes numbers or one image, and the inputs are {' and '.join(inputs)}.",
            hint="set use: false for the columns of one of them under data.columns",
        )
    ((name, spec),) = inputs.items()
    if spec.kind == "series" and output.per == "moment":
        moments, variables = spec.shape
        encoder, _ = of_numbers(moments * variables, config.hidden, config.code, config.activation)
        _, decoder = of_numbers(
            moments * output.size, config.hidden, config.code, config.activation
        )
        return WindowAutoencoder(name, encoder, decoder, moments)
    size = 1
    for length in spec.shape:
        size *= length
    if (
        output.size != size
        or output.per != ("image" if spec.kind == "image" else "row")
        or spec.kind == "series"
    ):
        raise PartError(
            "autoencoder reconstructs its input, and the task asks for something else.",
            hint="choose task: autoencoding, or anomaly_detection by reconstruction",
        )
    if spec.kind != "image":
        return Autoencoder(name, *of_numbers(size, config.hidden, config.code, config.activation))
    channels, height, width = spec.shape
    if min(height, width) < SMALLEST:
        raise PartError(
            f"autoencoder takes images from {SMALLEST}x{SMALLEST} pixels on, and these have "
            f"{height}x{width}."
        )
    return Autoencoder(name, *of_images((channels, height, width), config.width, config.code))
