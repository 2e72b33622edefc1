"""Wide residual network for images of about 28 to 64 pixels: few layers, many channels.

A 3x3 convolution to 16 channels; three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times
`width` channels, of which the second and third halve height and width; norm, activation, the mean
over the image, linear. In blocks, norm and activation precede each convolution. With a `stride` of
2 in the first convolution the network costs a quarter.

Numbers, categories and texts are joined after the mean, before a dense layer (late fusion).
Source: Zagoruyko and Komodakis, 2016, arXiv:1605.07146 (WRN-depth-width).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens")
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.004, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 20,
    "train.batch_size": 128,
}

STEM = 16  # channels before the first stage
SMALLEST = 4  # pixels of the shorter side
LARGE = 48  # pixels of the shorter side from which the first convolution halves the image


class Config(Options):
    """Depth, width, and the first stride."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of a wide_resnet whose weights this model starts from.",
    )
    depth: int = Field(
        16,
        ge=10,
        le=1000,
        description="Convolutional layers, 4 more than a multiple of 6: 10, 16, 22, 28, 40.",
    )
    width: int = Field(2, ge=1, le=512, description="Channels of the first stage, divided by 16.")
    stride: Literal[1, 2, "auto"] = Field(
        "auto",
        description="Stride of the first convolution; auto: 2 for images of at least 48 pixels.",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "relu", description="Activation before convolutions."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout between the two convolutions of a block.",
    )

    @field_validator("depth")
    @classmethod
    def _depth_of_three_stages(cls, depth: int) -> int:
        if depth % 6 != 4:
            below = depth - (depth - 4) % 6
            raise ValueError(
                f"depth must be 4 more than a multiple of 6, such as {max(below, 10)} or "
                f"{below + 6}"
            )
        return depth


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, or one too small."""
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches, require_image

    require_image("wide_resnet", inputs, SMALLEST)
    return fuse_branches(
        input_branches(inputs, lambda spec: _body(config, *spec.shape)),
        output.size,
        dense=64 * config.width,
        activation_name=config.activation,
    )


def _body(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    """(A module from an image to (B, features), the number of features)."""
    from torch import nn

    from danlu.layers.activations import activation
    from danlu.layers.normalization import BatchNorm2d
    from danlu.layers.vision.pooling import ChannelsLast, MeanOfPixels
    from danlu.layers.vision.residual import PreActivationBlock, convolution

    stride = (2 if min(height, width) >= LARGE else 1) if config.stride == "auto" else config.stride
    size = 3 if stride == 1 else 5  # so that kernels still overlap
    layers: list[nn.Module] = [
        ChannelsLast(),
        convolution(
            channels, STEM, size, stride=stride, bias=False, activation_name=config.activation
        ),
    ]
    channels = STEM
    for stage in range(3):
        wide = STEM * config.width * 2**stage
        for number in range((config.depth - 4) // 6):
            layers.append(
                PreActivationBlock(
                    channels,
                    wide,
                    stride=2 if stage > 0 and number == 0 else 1,
                    activation_name=config.activation,
                    dropout=config.dropout,
                )
            )
            channels = wide
    layers += [BatchNorm2d(channels), activation(config.activation), MeanOfPixels()]
    return nn.Sequential(*layers), channels
