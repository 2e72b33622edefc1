"""Residual network for images: ResNet-18, 34 (two 3x3 convolutions per block) or 50 (bottlenecks).

A first convolution; four stages of residual blocks, of which each after the first halves height and
width and doubles the channels; the mean over the image; linear. The sides of images of at least 64
pixels are quartered at the start (7x7 convolution of stride 2 and pooling, as for ImageNet);
smaller images keep their size (3x3 convolution). The stride of a bottleneck is in its 3x3
convolution, shortcuts are pooled, and blocks start near the identity.

Numbers, categories and texts are joined after the mean, before a dense layer (late fusion).
Sources: He et al., 2015, arXiv:1512.03385; He et al., 2018, arXiv:1812.01187 (shortcuts); Goyal et
al., 2017, arXiv:1706.02677 (initialisation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

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

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
}  # blocks of each stage by number of layers
BOTTLENECK_FROM = 50
EXPANSION = 4  # output channels of a bottleneck over its inner channels
SMALLEST = 4  # pixels of the shorter side
LARGE = 64  # pixels of the shorter side from which the ImageNet stem is used


class Config(Options):
    """The depth, the width, and the stem."""

    weights: str | None = Field(
        None, description="An artifact (or run) of a resnet whose weights this model starts from."
    )
    num_layers: Literal[18, 34, 50] = Field(
        18, description="Layers with weights, counted as in the paper."
    )
    width: int = Field(
        64,
        ge=1,
        le=8192,
        description="Channels of the first stage (a bottleneck outputs 4 times as many).",
    )
    stem: Literal["auto", "small", "imagenet"] = Field(
        "auto",
        description="The stem: small keeps all pixels, imagenet a sixteenth; auto: imagenet "
        "from 64 pixels on.",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "relu", description="Activation between convolutions."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout before the output layer.",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, or one too small."""
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches, require_image
    from danlu.layers.vision.residual import init_near_identity

    require_image("resnet", inputs, SMALLEST)
    module = fuse_branches(
        input_branches(inputs, lambda spec: _body(config, *spec.shape)),
        output.size,
        dense=8 * config.width,
        activation_name=config.activation,
        dropout=config.dropout,
    )
    init_near_identity(module)
    return module


def _body(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    """(A module from an image to (B, features), the number of features)."""
    from torch import nn

    from danlu.layers.vision.pooling import ChannelsLast, MeanOfPixels
    from danlu.layers.vision.residual import BottleneckBlock, ResidualBlock

    large = min(height, width) >= LARGE if config.stem == "auto" else config.stem == "imagenet"
    layers: list[nn.Module] = [ChannelsLast(), *_stem(config, channels, large)]
    channels = config.width
    for stage, count in enumerate(STAGES[config.num_layers]):
        wide = config.width * 2**stage
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            if config.num_layers < BOTTLENECK_FROM:
                layers.append(
                    ResidualBlock(
                        channels,
                        wide,
                        stride=stride,
                        batch_norm=True,
                        activation_name=config.activation,
                    )
                )
                channels = wide
            else:
                layers.append(
                    BottleneckBlock(
                        channels, EXPANSION * wide, stride=stride, activation_name=config.activation
                    )
                )
                channels = EXPANSION * wide
    return nn.Sequential(*layers, MeanOfPixels()), channels


def _stem(config: Config, channels: int, large: bool) -> list[nn.Module]:
    from torch import nn

    from danlu.layers.activations import activation
    from danlu.layers.normalization import BatchNorm2d
    from danlu.layers.vision.residual import convolution

    size, stride = (7, 2) if large else (3, 1)
    layers: list[nn.Module] = [
        convolution(
            channels,
            config.width,
            size,
            stride=stride,
            bias=False,
            activation_name=config.activation,
        ),
        BatchNorm2d(config.width),
        activation(config.activation),
    ]
    return [*layers, nn.MaxPool2d(3, 2, padding=1)] if large else layers
