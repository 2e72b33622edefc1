"""Convolutional network for images: a residual network, or two convolutions as in textbooks.

design: residual   convolution, then stages of residual blocks; each stage after the first halves
                   height and width and doubles the channels; mean over the image; linear.
                   `width` and `blocks` set its size. He et al., 2015, arXiv:1512.03385.
design: textbook   convolution 32 (3x3), pooling, convolution 64 (3x3), pooling, dense 128,
                   dropout, linear. LeCun et al., 1998, in the sizes of today's textbooks.

Images have at least 4x4 pixels. Numbers, categories and texts are joined after the pooling, before
a dense layer (late fusion).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu.parts.models._parametrization import Parametrization, build_scaled, depth_factor
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens")
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.004, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 16,
    "train.batch_size": 128,
}

SMALLEST = 4  # pixels of the shorter side
TEXTBOOK_CONVOLUTIONS = (32, 64)
TEXTBOOK_DENSE = 128
RESIDUAL_ONLY = ("width", "blocks", "batch_norm", "parametrization", "base_width", "base_layers")


class Config(Options):
    """The design, and its size."""

    weights: str | None = Field(
        None, description="An artifact (or run) of a cnn whose weights this model starts from."
    )
    design: Literal["residual", "textbook"] = Field("residual", description="The network's plan.")
    width: int = Field(32, ge=1, le=8192, description="Channels of the first stage (residual).")
    blocks: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        [1, 1, 1],
        min_length=1,
        max_length=8,
        description="Residual blocks of each stage (residual).",
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "relu", description="Activation between convolutions."
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Dropout before the output layer.",
    )
    batch_norm: bool = Field(
        True, description="Batch normalisation after every convolution (residual)."
    )
    parametrization: Parametrization = "standard"
    base_width: int = Field(32, ge=1, description="Width at which mup equals standard.")
    base_layers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Residual blocks at which depth changes nothing (mup); null: depth is not "
        "scaled.",
    )

    @model_validator(mode="after")
    def _options_of_the_design(self) -> Config:
        if self.design == "textbook":
            changed = [
                name
                for name in RESIDUAL_ONLY
                if getattr(self, name) != type(self).model_fields[name].default
            ]
            if changed:
                raise ValueError(
                    f"{' and '.join(changed)} belong to design: residual; the sizes of design: "
                    "textbook are fixed"
                )
        return self


def width_of(config: Config) -> int:
    """Channels of the first stage; 0 for design: textbook, whose sizes are fixed."""
    return config.width if config.design == "residual" else 0


def at_width(config: Config, width: int) -> Config:
    """The same network with all stages scaled in proportion."""
    return Config.model_validate({**config.model_dump(), "width": width})


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, or one too small."""

    def network(config: Config) -> nn.Module:
        return _network(config, inputs, output)

    if config.parametrization == "standard":
        return network(config)
    branch = depth_factor(config.base_layers, sum(config.blocks))
    return build_scaled(network, config, at_width(config, config.base_width), branch)


def _network(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches, require_image

    require_image("cnn", inputs, SMALLEST)
    body = _textbook if config.design == "textbook" else _residual
    return fuse_branches(
        input_branches(inputs, lambda spec: body(config, *spec.shape)),
        output.size,
        dense=TEXTBOOK_DENSE
        if config.design == "textbook"
        else config.width * 2 ** (len(config.blocks) - 1),
        activation_name=config.activation,
        dropout=config.dropout,
        always_dense=config.design == "textbook",
    )


def _textbook(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    from torch import nn

    from danlu.layers.activations import activation
    from danlu.layers.vision.pooling import ChannelsLast
    from danlu.layers.vision.residual import convolution

    layers: list[nn.Module] = [ChannelsLast()]
    for wide in TEXTBOOK_CONVOLUTIONS:
        layers += [
            convolution(channels, wide, 3, stride=1, bias=True, activation_name=config.activation),
            activation(config.activation),
            nn.MaxPool2d(2),
        ]
        channels, height, width = wide, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten()), channels * height * width


def _residual(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    from torch import nn

    from danlu.layers.vision.pooling import ChannelsLast, MeanOfPixels
    from danlu.layers.vision.residual import ResidualBlock

    layers: list[nn.Module] = [ChannelsLast(), *_stem(config, channels, min(height, width))]
    channels = config.width
    for stage, count in enumerate(config.blocks):
        wide = config.width * 2**stage
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            layers.append(
                ResidualBlock(
                    channels,
                    wide,
                    stride=stride,
                    batch_norm=config.batch_norm,
                    activation_name=config.activation,
                    scale=sum(config.blocks) ** -0.5,
                )
            )
            channels = wide
    return nn.Sequential(*layers, MeanOfPixels()), channels


def _stem(config: Config, channels: int, side: int) -> list[nn.Module]:
    """The first convolution. It halves the sides of images of at least 16 pixels, and quarters
    those of at least 64: most of a network's time goes into the pixels of its first stage, and the
    first features need few of them."""
    from torch import nn

    from danlu.layers.activations import activation
    from danlu.layers.normalization import BatchNorm2d
    from danlu.layers.vision.residual import convolution

    size, stride = (3, 1) if side < 16 else (5, 2) if side < 64 else (7, 2)
    layers: list[nn.Module] = [
        convolution(
            channels,
            config.width,
            size,
            stride=stride,
            bias=not config.batch_norm,
            activation_name=config.activation,
        )
    ]
    if config.batch_norm:
        layers.append(BatchNorm2d(config.width))
    layers.append(activation(config.activation))
    return [*layers, nn.MaxPool2d(3, 2, padding=1)] if side >= 64 else layers
