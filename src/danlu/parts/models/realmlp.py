"""RealMLP: perceptrons for tables whose defaults were chosen over many data sets.

Each number is brought to the quantiles of a normal distribution, and read beside learnt functions
of it that are linear within pieces; categories of few values are one-hot features, others
embeddings; texts are summaries of their tokens. A learnt scale of each feature follows, then dense
layers in the neural tangent parametrization, whose matrices, biases, scales and pieces learn at
rates of their own. Several such networks (`members`) learn side by side from the same rows, with
one embedding of the columns, and the mean of their probabilities or numbers is the answer.
Sources: Holzmüller et al., 2024, arXiv:2407.04491 (RealMLP-TD); Gorishniy et al., 2024,
arXiv:2410.24210 (an ensemble in one network, numbers in pieces).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.recipe import Data, Options, Part

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "tokens")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.002, "beta2": 0.95},
    "schedule": {"name": "coslog"},
    "regularization.early_stopping": {"patience": 0.3},
    "train.epochs": 40,
    "train.least_steps": 600,
    "train.batch_size": 128,
}
_RATE = 40.0  # times the recipe's learning rate: that of a dense matrix, 0.08 by default
_MOST_PIECES, _ALL_PIECES, _FEWEST_PIECES = 256, 4096, 16  # where `pieces` is auto

Width = Annotated[int, Field(ge=1, le=1_000_000)]


class Config(Options):
    """The number of members, their width and depth, and how columns are read."""

    members: int = Field(8, ge=1, le=4096, description="Networks that learn side by side.")
    hidden: list[Width] = Field(
        [64, 64, 64], max_length=100, description="Width of each hidden layer of a member."
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "silu", description="Activation between dense layers."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="Dropout after each hidden layer; auto: 0.1 for classes, 0 for numbers.",
    )
    pieces: Annotated[int, Field(ge=0, le=4096)] | Literal["auto"] = Field(
        "auto",
        description="Pieces within which the learnt functions of a number are linear; 0: there are "
        "no such functions; auto: 256, or 4096 / features where that is less, 0 where it is below "
        "16.",
    )
    most_one_hot: int = Field(
        9,
        ge=0,
        le=1000,
        description="Categories of up to so many values are one-hot features; others are embedded.",
    )
    embedding: int = Field(8, ge=1, le=4096, description="Size of a category's embedding.")


def adapt(config: Config, data: Data) -> Data:
    """The data section in which numbers without transforms of their own become quantiles."""
    from danlu import registry

    usual = [
        Part(name, registry.config("transforms", name).model_validate(options))
        for name, options in (
            ("impute", {}),
            ("scale", {"by": "rows_and_values"}),
        )
    ]
    return data.model_copy(update={"transforms": {"number": usual, **data.transforms}})


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module, an Ensemble (danlu.layers.averaging)."""
    from danlu.layers.tabular.merging import concatenated
    from danlu.parts.models._realmlp import Perceptrons

    branches = [branch for name, spec in inputs.items() for branch in _branches(config, name, spec)]
    return Perceptrons(
        concatenated([branch for branch, _ in branches]),
        sum(width for _, width in branches),
        output,
        members=config.members,
        hidden=config.hidden,
        activation_name=config.activation,
        dropout=(0.1 if output.means else 0.0) if config.dropout == "auto" else config.dropout,
        rate=_RATE,
    )


def _branches(config: Config, name: str, spec: InputSpec) -> list[tuple[nn.Module, int]]:
    """[(a module from one input to (B, width), that width)]: one, or two of categories."""
    from danlu.layers.tabular.merging import TakeInput
    from danlu.layers.text.summary import TokenSummary
    from danlu.parts.models._realmlp import OneHot, PieceEmbedding, ScaledTable

    if spec.kind == "categories":
        sizes = spec.cardinalities  # one more than there are values: code 0 is an unknown one
        few = [column for column, size in enumerate(sizes) if size <= config.most_one_hot + 1]
        many = [column for column, size in enumerate(sizes) if size > config.most_one_hot + 1]
        modules: list[OneHot | ScaledTable] = []
        if any(sizes[column] > 1 for column in few):
            modules.append(OneHot(sizes, few))
        if many:
            modules.append(ScaledTable(sizes, many, config.embedding, _RATE))
        return [(TakeInput(name, module), module.width) for module in modules]
    if spec.kind == "tokens":
        summary = TokenSummary(spec)
        return [(TakeInput(name, summary), summary.width)]
    features = spec.shape[0]
    pieces = _pieces_of(features) if config.pieces == "auto" else config.pieces
    if not pieces:
        return [(TakeInput(name), features)]
    embedding = PieceEmbedding(features, pieces, _RATE)
    return [(TakeInput(name, embedding), embedding.width)]


def _pieces_of(features: int) -> int:
    """The pieces of each of so many features: their work stays bounded, however many there are."""
    pieces = min(_MOST_PIECES, _ALL_PIECES // max(features, 1))
    return pieces if pieces >= _FEWEST_PIECES else 0
