"""TabM: an ensemble of multilayer perceptrons for tables, trained as one network.

Members share their weight matrices; each has its own scales and biases in every layer, and its own
output layer. Each is trained by its own loss; the prediction is the mean of their probabilities or
numbers. Numbers are read directly, as periodic embeddings (`periodic`), or piecewise linear
(transform piecewise_linear); categories as embeddings; texts as a summary of their tokens.
Source: Gorishniy et al., 2024, arXiv:2410.24210.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "tokens")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 30,
    "train.batch_size": 256,
}

Width = Annotated[int, Field(ge=1, le=1_000_000)]


class Config(Options):
    """The number of members, and the width and depth of each."""

    members: int = Field(16, ge=1, le=4096, description="Networks in the ensemble.")
    hidden: list[Width] = Field(
        [256, 256, 256], max_length=100, description="Width of each hidden layer."
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "relu", description="Activation between dense layers."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after each hidden layer.")
    embedding: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        "auto",
        description="Size of a category's embedding; auto: 2 to 64 by the number of categories.",
    )
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


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module, an Ensemble (danlu.layers.averaging)."""
    from danlu.layers.tabular.merging import concatenated
    from danlu.parts.models._tabm import Ensemble

    branches = [_branch(config, name, spec) for name, spec in inputs.items()]
    chunks = [chunk for _, spec in branches for chunk in spec]
    return Ensemble(
        concatenated([branch for branch, _ in branches]),
        chunks,
        output,
        members=config.members,
        hidden=config.hidden,
        # as in the paper, initial scales are 1 or -1 for columns of one number, and normally
        # distributed for embedded ones
        start="signs" if all(chunk == 1 for chunk in chunks) else "normal",
        activation_name=config.activation,
        dropout=config.dropout,
    )


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, list[int]]:
    """(A module from one input to (B, D), how many of the D features belong to each column or to
    each feature's embedding)."""
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput
    from danlu.layers.tabular.periodic import EMBEDDING, PeriodicEmbedding
    from danlu.layers.tabular.tokens import features_per_column
    from danlu.layers.text.summary import TokenSummary

    if spec.kind == "categories":
        embedding = CategoryEmbedding(
            spec.cardinalities, None if config.embedding == "auto" else config.embedding
        )
        return TakeInput(name, embedding), embedding.widths
    if spec.kind == "tokens":
        summary = TokenSummary(spec)
        return TakeInput(name, summary), [1] * summary.width
    if config.periodic:
        features = spec.shape[0]
        return TakeInput(
            name, PeriodicEmbedding(features, config.periodic, config.periodic_scale)
        ), [1] * features + [EMBEDDING] * features
    return TakeInput(name), features_per_column(spec)
