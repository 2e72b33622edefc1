"""Convolutional network over the frames of a recording, pooled over time: one output per recording.

Blocks of two 3x3 convolutions over time and bands, each block followed by pooling, as in VGG; then
the mean and the maximum of every channel over time, and a dense layer. Padding behind the end of a
shorter recording does not change the output.
Sources: Simonyan and Zisserman, 2015, arXiv:1409.1556; Kong et al., 2020, arXiv:1912.10211 (mean
and maximum over time)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("frames", "numbers", "categories")
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.004, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 20,
    "train.batch_size": 32,
    "data.augmentations": ["spec_augment"],
}


class Config(Options):
    """Width and depth."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of an audio_cnn whose weights this model starts from.",
    )
    widths: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        [32, 64, 128],
        min_length=1,
        max_length=8,
        description="Channels of each block; each block halves time and bands.",
    )
    dense: int = Field(
        128, ge=1, le=65536, description="Width of the dense layer before the output layer."
    )
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Dropout before the output layer.",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there are no frames."""
    from danlu.layers.tabular.late_fusion import fuse_branches

    if not any(spec.kind == "frames" for spec in inputs.values()):
        raise PartError(
            "audio_cnn reads the frames of recordings, and the inputs hold none.",
            hint="choose another model",
        )
    branches = [_branch(config, name, spec) for name, spec in inputs.items()]
    return fuse_branches(
        branches, output.size, dense=config.dense, dropout=config.dropout, always_dense=True
    )


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """(A module from one input to (B, width), that width)."""
    from danlu.layers.audio.masked_convolution import RecordingVector
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput

    if spec.kind == "categories":
        embedding = CategoryEmbedding(spec.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if spec.kind == "numbers":
        return TakeInput(name), spec.shape[0]
    body = RecordingVector(name, spec.shape[1], config.widths)
    return body, body.width
