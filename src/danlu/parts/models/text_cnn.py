"""Convolutions over words: filters for phrases of a few words; fast and accurate for sentences.

Each filter is a convolution over the embeddings of 3, 4 or 5 adjacent words; its maximum over the
row is kept, and dropout and one linear layer follow. Each text column is read separately; numbers,
categories and an image are joined in a dense layer.
Source: Kim, 2014, arXiv:1408.5882 (its model CNN-rand: embeddings are learnt from the start).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens", "numbers", "categories", "image")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.001},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 8,
    "train.batch_size": 64,
}

Width = Annotated[int, Field(ge=1, le=100)]


class Config(Options):
    """The filters, the embeddings, and regularization."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of a text_cnn whose weights and tokenizer this model "
        "starts from.",
    )
    widths: list[Width] = Field(
        [3, 4, 5], min_length=1, max_length=16, description="Kernel sizes of the filters in words."
    )
    filters: int = Field(100, ge=1, le=65536, description="Filters of each width.")
    embedding: int = Field(128, ge=1, le=65536, description="Size of the embedding of a word.")
    letter_embedding: int = Field(
        32,
        ge=1,
        le=4096,
        description="Size of the embedding of a letter (vocabulary: characters).",
    )
    letter_filters: int = Field(
        64, ge=1, le=65536, description="Filters over the letters of a word."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of the outputs of filters.")
    embedding_dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of embeddings.")
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
    from danlu.layers.text.pooled import ConvolvedText, small_image

    if not any(spec.kind == "tokens" for spec in inputs.values()):
        raise PartError(
            "text_cnn reads tokens, and the inputs hold none.", hint="choose model: mlp"
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
        text = ConvolvedText(words, config.widths, config.filters, config.embedding_dropout)
        return text, text.width

    branches = input_branches(
        inputs, lambda spec: small_image(spec.shape, config.dense), text_branch
    )
    return fuse_branches(branches, output.size, dense=config.dense, dropout=config.dropout)
