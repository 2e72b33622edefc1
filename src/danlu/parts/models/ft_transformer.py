"""FT-Transformer for tables: each column becomes a token, with attention between columns.

The token of a number is linear in it (or in its periodic embedding with `periodic`, or in its
piecewise linear encoding where data.columns.*.transforms has piecewise_linear: all features of a
column make one token). The token of a category is an embedding, and a text is one token. The output
is read from an additional class token.
Sources: Gorishniy et al., 2021, arXiv:2106.11959; periodic embeddings: Gorishniy et al., 2022,
arXiv:2203.05556.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "tokens")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 30,
    "train.batch_size": 256,
    "train.clip_norm": 1.0,
}


class Config(Options):
    """The size of the Transformer, and how numbers are embedded."""

    num_layers: int = Field(3, ge=1, le=1000, description="Blocks of attention and feed-forward.")
    width: int = Field(
        64, ge=1, le=65536, description="Size of a column's token; a multiple of num_heads."
    )
    num_heads: int = Field(4, ge=1, le=1024, description="Heads of attention.")
    feed_forward: Literal["gelu", "swiglu", "relu_squared"] = Field(
        "swiglu", description="Activation of the feed-forward half of a block."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of each half of a block.")
    periodic: int = Field(
        0,
        ge=0,
        le=4096,
        description="Learnt frequencies of each number's periodic embedding; 0: no embedding.",
    )
    periodic_scale: float = Field(
        0.05,
        gt=0,
        le=100,
        description="Initial standard deviation of the frequencies; larger ones resolve finer "
        "steps, and noise.",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Config:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module."""
    from torch import nn

    from danlu.layers.tabular.tokens import FeatureTransformer
    from danlu.layers.transformer.blocks import StackSizes

    sizes = StackSizes(
        config.num_layers,
        config.width,
        config.num_heads,
        feed_forward=config.feed_forward,
        normalization="layer",
        dropout=config.dropout,
    )
    return nn.Sequential(
        FeatureTransformer(inputs, sizes, config.periodic, config.periodic_scale),
        nn.ReLU(),
        nn.Linear(config.width, output.size),
    )
