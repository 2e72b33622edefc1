"""MLP-Mixer for images: dense layers that mix patches and features in turn.

Numbers, categories and texts are joined after the mean over the patches, before a dense layer (late
fusion).
Source: Tolstikhin et al., 2021, arXiv:2105.01601.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens")
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.003, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 30,
    "train.batch_size": 128,
    "train.clip_norm": 1.0,
}

SMALLEST = 2  # pixels of the shorter side


class Config(Options):
    """The size of patches and layers."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of an mlp_mixer whose weights this model starts from.",
    )
    patch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Side of a patch in pixels; auto: about an eighth of the image's shorter "
        "side, 2 to 16.",
    )
    num_layers: int = Field(6, ge=1, le=1000, description="Blocks, each of two mixing networks.")
    width: int = Field(128, ge=1, le=65536, description="Size of a patch's vector.")
    inner_places: int = Field(
        64, ge=1, le=65536, description="Inner width of the networks that mix patches."
    )
    inner_width: int = Field(
        512, ge=1, le=262144, description="Inner width of the networks that mix features."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of each half of a block.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, or one smaller than a patch."""
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches, require_image

    require_image("mlp_mixer", inputs, SMALLEST if config.patch == "auto" else config.patch)
    return fuse_branches(
        input_branches(inputs, lambda spec: _body(config, *spec.shape)),
        output.size,
        dense=config.width,
        activation_name="gelu",
    )


def _body(config: Config, channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    from danlu.layers.vision.patches import patch_side
    from danlu.layers.vision.vision_transformer import Mixer

    side = patch_side(height, width) if config.patch == "auto" else config.patch
    body = Mixer(
        (channels, height, width),
        side,
        config.width,
        config.num_layers,
        config.inner_places,
        config.inner_width,
        config.dropout,
    )
    return body, config.width
