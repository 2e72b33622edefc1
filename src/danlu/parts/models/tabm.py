"""TabM: an ensemble of multilayer perceptrons for tables, trained as one network.

Members share their matrices; each has scales and biases of its own in every layer, and a last layer
of its own. Each learns by itself, and they answer together: the mean of their probabilities, or of
their numbers. Numbers go in as they are, or as periodic embeddings (`periodic`), or cut into pieces
by data.columns.*.transforms (piecewise_linear); categories as embeddings; texts summed up.
Gorishniy et al., 2024, arXiv:2410.24210."""

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
    """How many members, how wide and deep each is."""

    members: int = Field(16, ge=1, le=4096, description="Networks that learn side by side.")
    hidden: list[Width] = Field(
        [256, 256, 256], max_length=100, description="Width of each hidden layer."
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "relu", description="The function between dense layers."
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of each hidden layer's activations dropped in training."
    )
    embedding: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        "auto",
        description="Numbers that stand for a category; auto: by how many values the column has, 2 to 64.",
    )
    periodic: int = Field(
        0,
        ge=0,
        le=4096,
        description="Learnt frequencies a number is turned into (sines and cosines); 0 takes the number as it is.",
    )
    periodic_scale: float = Field(
        0.05,
        gt=0,
        le=100,
        description="Standard deviation the frequencies start with; larger ones see finer steps, and noise.",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module, with `members`."""
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
        # columns that one number stands for differ in sign only, as in the paper; embedded ones in
        # size too
        start="signs" if all(chunk == 1 for chunk in chunks) else "normal",
        activation_name=config.activation,
        dropout=config.dropout,
    )


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, list[int]]:
    """What takes one input to (B, D), and how many of the D belong to each column (or to each
    feature's embedding)."""
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
