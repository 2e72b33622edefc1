"""Vision Transformer for images: patches as tokens, a Transformer encoder, the mean over them or a class token.

Dosovitskiy et al., 2020, arXiv:2010.11929. Learnt positions; normalization before each half of a
block; no biases; the mean over patches instead of a class token by default (Beyer et al., 2022,
arXiv:2205.01580). On a few thousand images a convolutional network learns more.

Numbers, categories and texts join after the encoder, before a dense layer (late fusion).
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
    """Its size."""

    weights: str | None = Field(
        None, description="An artifact (or run) of a vit whose weights this model starts from."
    )
    patch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Pixels of a patch's side; auto: about an eighth of the image's shorter side, from 2 to 16.",
    )
    num_layers: int = Field(6, ge=1, le=1000, description="Blocks of attention and feed-forward.")
    width: int = Field(
        128, ge=1, le=65536, description="Size of a patch's vector; a multiple of num_heads."
    )
    num_heads: int = Field(4, ge=1, le=1024, description="Heads of attention.")
    pooling: Literal["mean", "class_token"] = Field(
        "mean", description="The mean over the patches, or a token that gathers them."
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share dropped of what each half of a block adds, in training."
    )

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
