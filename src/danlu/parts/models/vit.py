"""Vision Transformer for images: a Transformer encoder over patches.

Positions are learned, normalization precedes each half of a block, there are no biases, and the
output is read from the mean over the patches by default, or from a class token. On a few thousand
images a convolutional network is more accurate.

Numbers, categories and texts are joined after the encoder, before a dense layer (late fusion).
Sources: Dosovitskiy et al., 2020, arXiv:2010.11929; Beyer et al., 2022, arXiv:2205.01580 (the mean
over patches).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens")
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.006, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 30,
    "train.batch_size": 128,
    "train.clip_norm": 1.0,
}

SMALLEST = 2  # pixels of the shorter side


class Config(Options):
    """The size of patches and layers."""

    weights: str | None = Field(
        None, description="An artifact (or run) of a vit whose weights this model starts from."
    )
    patch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Side of a patch in pixels; auto: about an eighth of the image's shorter "
        "side, 2 to 16.",
    )
    num_layers: int = Field(6, ge=1, le=1000, description="Blocks of attention and feed-forward.")
    width: int = Field(
        128, ge=1, le=65536, description="Features per patch; a multiple of num_heads."
    )
    num_heads: int = Field(4, ge=1, le=1024, description="Heads of attention.")
    pooling: Literal["mean", "class_token"] = Field(
        "mean", description="The mean over the patches, or a class token."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of each half of a block.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Config:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, or one smaller than a patch."""
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches, require_image

    require_image("vit", inputs, SMALLEST if config.patch == "auto" else config.patch)
    return fuse_branches(
        input_branches(inputs, lambda spec: _body(config, *spec.shape)),
        output.size,
        dense=config.width,
        activation_name="gelu",
    )


def _body(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    from danlu.layers.transformer.blocks import StackSizes
    from danlu.layers.vision.patches import patch_side
    from danlu.layers.vision.vision_transformer import VisionTransformer

    side = patch_side(height, width) if config.patch == "auto" else config.patch
    sizes = StackSizes(
        config.num_layers,
        config.width,
        config.num_heads,
        feed_forward="gelu",
        normalization="layer",
        dropout=config.dropout,
    )
    return VisionTransformer((channels, height, width), side, sizes, config.pooling), config.width
