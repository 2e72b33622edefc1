"""The mean of the embeddings of a text's words and n-grams (fastText): a fast, strong baseline.

Each word, and each n-gram of up to `longest` words (hashed into a table), has an embedding; their
mean (or maximum, or both) goes through dropout and one linear layer. Each text column has its own
tables; numbers, categories and an image are joined in a dense layer.
Source: Joulin, Grave, Bojanowski and Mikolov, 2016, arXiv:1607.01759 (fastText).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens", "numbers", "categories", "image")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.003},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 8,
    "train.batch_size": 64,
}


class Config(Options):
    """What has an embedding, and how embeddings are pooled."""

    embedding: int = Field(
        64, ge=1, le=65536, description="Size of the embedding of a word or n-gram."
    )
    longest: int = Field(
        2,
        ge=1,
        le=8,
        description="Words of the longest n-grams with an embedding; 1: single words.",
    )
    buckets: int = Field(
        32_768, ge=16, le=1 << 24, description="Number of embeddings that n-grams are hashed to."
    )
    pooling: Literal["mean", "max", "mean_and_max"] = Field(
        "mean", description="How embeddings are pooled to one vector."
    )
    letter_embedding: int = Field(
        32,
        ge=1,
        le=4096,
        description="Size of the embedding of a letter (vocabulary: characters).",
    )
    letter_filters: int = Field(
        64, ge=1, le=65536, description="Filters over the letters of a word."
    )
    dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Dropout of embeddings and of features.",
    )
    unknown: float = Field(
        0.02, ge=0, lt=1, description="Share of words replaced by the unknown token in training."
    )
    dense: int = Field(
        128, ge=1, le=65536, description="Width of the layer that joins several inputs."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no text."""
    from danlu.layers.tabular.late_fusion import fuse_branches, input_branches
    from danlu.layers.text.embeddings import WordEmbedding
    from danlu.layers.text.pooled import BagOfWords, small_image

    if not any(spec.kind == "tokens" for spec in inputs.values()):
        raise PartError(
            "bag_of_embeddings reads tokens, and the inputs hold none.", hint="choose model: mlp"
        )

    def text_branch(spec: InputSpec) -> tuple[nn.Module, int]:
        words = WordEmbedding(
            spec.cardinalities,
            spec.names,
            config.embedding,
            letter_size=config.letter_embedding,
            filters=config.letter_filters,
            unknown=config.unknown,
        )
        bag = BagOfWords(words, config.longest, config.buckets, config.pooling, config.dropout)
        return bag, bag.width

    branches = input_branches(
        inputs, lambda spec: small_image(spec.shape, config.dense), text_branch
    )
    return fuse_branches(branches, output.size, dense=config.dense, dropout=config.dropout)
