"""Multilayer perceptron: dense layers with an activation between them.

Each hidden layer is linear -> normalization (optional) -> activation -> dropout. Numbers are read
directly or as periodic embeddings (`periodic`), categories as embeddings, images flattened, texts
as the mean of their tokens and the maximum over their n-grams. The textbook network 784-128-10 is
{name: mlp, hidden: [128], activation: relu, dropout: 0}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu.parts.models._parametrization import Parametrization, build_scaled
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.002},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 30,
    "train.batch_size": 128,
}

Width = Annotated[int, Field(ge=1, le=1_000_000)]


class Config(Options):
    """Width, depth, regularization, and how numbers and categories are embedded."""

    hidden: list[Width] = Field(
        [256, 256],
        max_length=100,
        description="Width of each hidden layer; []: a linear model.",
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        "relu", description="Activation between dense layers."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after each hidden layer.")
    batch_norm: bool = Field(False, description="Batch normalisation of each hidden layer.")
    layer_norm: bool = Field(False, description="Layer normalisation of each hidden layer.")
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
    parametrization: Parametrization = "standard"
    base_width: int = Field(
        128,
        ge=1,
        description="Width of the widest hidden layer at which mup equals standard.",
    )

    @model_validator(mode="after")
    def _one_normalization(self) -> Config:
        if self.batch_norm and self.layer_norm:
            raise ValueError("batch_norm and layer_norm exclude each other")
        if self.parametrization == "mup" and not self.hidden:
            raise ValueError("parametrization: mup scales hidden layers, and hidden is []")
        return self


def width_of(config: Config) -> int:
    """The width of the widest hidden layer; 0 where there is none."""
    return max(config.hidden, default=0)


def at_width(config: Config, width: int) -> Config:
    """The same network with all hidden layers scaled in proportion, the widest to `width`."""
    hidden = [max(1, round(size * width / width_of(config))) for size in config.hidden]
    return Config.model_validate({**config.model_dump(), "hidden": hidden})


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Hidden layers are initialised as by He et al., 2015, the output layer by torch's
    default, which is smaller."""

    def network(config: Config) -> nn.Module:
        return _network(config, inputs, output)

    if config.parametrization == "standard":
        return network(config)
    return build_scaled(network, config, at_width(config, config.base_width))


def _network(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from torch import nn

    from danlu.layers.activations import activation, init_linear
    from danlu.layers.dropout import Dropout
    from danlu.layers.normalization import BatchNorm1d
    from danlu.layers.tabular.merging import concatenated

    branches = [_branch(config, name, spec) for name, spec in inputs.items()]
    layers: list[nn.Module] = [concatenated([branch for branch, _ in branches])]
    width = sum(width for _, width in branches)
    for next_width in config.hidden:
        normalized = config.batch_norm or config.layer_norm
        linear = nn.Linear(width, next_width, bias=not normalized)
        init_linear(linear, config.activation)
        layers.append(linear)
        if normalized:
            layers.append(
                BatchNorm1d(next_width) if config.batch_norm else nn.LayerNorm(next_width)
            )
        layers.append(activation(config.activation))
        if config.dropout:
            layers.append(Dropout(config.dropout))
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, output.size))


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """(A module from one input to (B, width), that width)."""
    from torch import nn

    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput
    from danlu.layers.tabular.periodic import PeriodicEmbedding
    from danlu.layers.text.summary import TokenSummary

    if spec.kind == "categories":
        embedding = CategoryEmbedding(
            spec.cardinalities, None if config.embedding == "auto" else config.embedding
        )
        return TakeInput(name, embedding), embedding.width
    if spec.kind == "image":
        return TakeInput(name, nn.Flatten()), math.prod(spec.shape)
    if spec.kind == "tokens":
        summary = TokenSummary(spec)
        return TakeInput(name, summary), summary.width
    if config.periodic:
        periodic = PeriodicEmbedding(spec.shape[0], config.periodic, config.periodic_scale)
        return TakeInput(name, periodic), periodic.width
    return TakeInput(name), spec.shape[0]
