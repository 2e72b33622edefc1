"""Conformer: attention and convolution over frames, for one output per recording or per frame.

Two convolutions of stride 2 reduce four frames to one; then blocks of feed-forward, attention,
convolution, feed-forward. One output per frame recognises the characters of speech.
Source: Gulati et al., 2020, arXiv:2005.08100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.parts.models._conformer import Conformer
    from danlu.terms import InputSpec, OutputSpec

TAKES = ("frames", "numbers", "categories")
GIVES = ("row", "frame")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 40,
    "train.batch_size": 32,
    "train.clip_norm": 1.0,
    "data.augmentations": ["spec_augment"],
}


class Config(Options):
    """Its size."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of a conformer whose weights this model starts from.",
    )
    width: int = Field(96, ge=2, le=8192, description="Features per frame.")
    num_heads: int = Field(4, ge=1, le=128, description="Heads of attention.")
    num_layers: int = Field(4, ge=1, le=100, description="Blocks.")
    kernel: int = Field(
        15, ge=1, le=255, description="Kernel size of the convolutions in frames; an odd number."
    )
    halvings: int = Field(
        2, ge=0, le=4, description="How often time and bands are halved before the blocks."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of activations.")

    @model_validator(mode="after")
    def _numbers_that_divide(self) -> Config:
        if self.width % (2 * self.num_heads):
            raise ValueError(
                f"width {self.width} must be a multiple of twice num_heads {self.num_heads}"
            )
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError where there are no frames, or other inputs beside them for one output
    per frame."""
    from danlu.layers.tabular.late_fusion import fuse_branches
    from danlu.parts.models._conformer import RecordingFrames

    frames = [name for name, spec in inputs.items() if spec.kind == "frames"]
    if not frames:
        raise PartError(
            "conformer reads the frames of recordings, and the inputs hold none.",
            hint="choose another model",
        )
    if output.per == "frame":
        if len(inputs) > 1:
            raise PartError(
                f"conformer reads one recording per row; the inputs are {', '.join(inputs)}.",
                hint="set use: false for the other columns",
            )
        return RecordingFrames(_body(config, frames[0], inputs[frames[0]]), output.size)
    branches = [_branch(config, name, spec) for name, spec in inputs.items()]
    return fuse_branches(branches, output.size, dense=config.width, dropout=config.dropout)


def _body(config: Config, name: str, spec: InputSpec) -> Conformer:
    from danlu.parts.models._conformer import Conformer

    return Conformer(
        name,
        spec.shape[1],
        config.width,
        config.num_heads,
        config.num_layers,
        config.kernel,
        config.halvings,
        config.dropout,
    )


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """(A module from one input to (B, width), that width)."""
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput
    from danlu.parts.models._conformer import RecordingRow

    if spec.kind == "categories":
        embedding = CategoryEmbedding(spec.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if spec.kind == "numbers":
        return TakeInput(name), spec.shape[0]
    body = _body(config, name, spec)
    return RecordingRow(body), body.width
