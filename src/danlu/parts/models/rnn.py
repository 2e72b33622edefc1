"""Recurrent network: vanilla, GRU or LSTM cells over texts, series and recordings.

Words become embeddings (their letters go through a small convolution); dropout applies to
embeddings and states. The states of the last layer become
  one output per row        pooling over positions (maximum, attention, mean or last state), linear
  one output per position   linear at every position: labels of words, or the next token (one
                            direction only, so that it does not look ahead)
  several steps ahead       linear from the last state, each window normalised (`level`); columns
                            known in advance add to each step
Each text column is read separately and joined late; for one output per position, columns must have
the same positions and are joined there. Numbers and categories are joined after the last state.
`crf` adds a linear chain over the labels of a row (danlu/parts/models/_crf.py).
Sources: see danlu/layers/recurrent/rnn.py and danlu/layers/text/embeddings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.layers.recurrent.rnn import Recurrent
    from danlu.layers.recurrent.sequence_reader import Reader
    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens", "frames", "series", "numbers", "categories")
GIVES = ("row", "token", "step")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.005},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "train.epochs": 8,
    "train.batch_size": 32,
    "train.clip_norm": 5.0,
}
SEQUENCES = ("tokens", "frames", "series")


class Config(Options):
    """The cell, the width, pooling and regularization."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of an rnn whose weights and tokenizer this model "
        "starts from.",
    )
    cell: Literal["vanilla", "gru", "lstm"] = Field("lstm", description="The recurrent cell.")
    width: int = Field(
        128, ge=1, le=65536, description="Size of the state of each layer and direction."
    )
    num_layers: int = Field(1, ge=1, le=64, description="Stacked layers of cells.")
    bidirectional: bool | Literal["auto"] = Field(
        "auto",
        description="Whether rows are read in both directions; auto: yes, except for forecasts "
        "and causal tasks.",
    )
    embedding: int = Field(128, ge=1, le=65536, description="Size of the embedding of a token.")
    letter_embedding: int = Field(
        32,
        ge=1,
        le=4096,
        description="Size of the embedding of a letter (vocabulary: characters).",
    )
    letter_filters: int = Field(
        64, ge=1, le=65536, description="Filters over the letters of a word."
    )
    pooling: Literal["max", "mean", "attention", "last"] = Field(
        "max",
        description="How the positions of a row are pooled, for one output per row.",
    )
    dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Dropout of embeddings, states and features.",
    )
    unknown: float = Field(
        0.02, ge=0, lt=1, description="Share of tokens replaced by the unknown token in training."
    )
    level: Literal["none", "last", "standard"] = Field(
        "standard",
        description="For forecasts: normalise each window by its last value, or by its mean and "
        "standard deviation; outputs are scaled back.",
    )
    crf: bool = Field(
        False,
        description="Learn transitions between adjacent labels (only for one output per position).",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError where there is nothing to read, and for directions or outputs that
    exclude each other."""
    _check(config, inputs, output)
    if output.per == "token":
        return _places(config, inputs, output)
    if output.per == "step":
        return _forecast(config, inputs, output)
    from danlu.layers.tabular.late_fusion import fuse_branches

    branches = [_row_branch(config, name, spec) for name, spec in inputs.items()]
    return fuse_branches(
        branches, output.size, dense=config.width, activation_name="relu", dropout=config.dropout
    )


def _check(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> None:
    if not any(spec.kind in SEQUENCES for spec in inputs.values()):
        raise PartError(
            "rnn reads tokens, frames or a series, and the inputs hold none.",
            hint="choose model: mlp",
        )
    if config.crf and output.per != "token":
        raise PartError(
            "crf needs one label per position, and this task has no such labels.",
            hint="leave crf out",
        )
    if config.crf and output.causal:
        raise PartError(
            "crf uses following labels, and this task must not look ahead.",
            hint="leave crf out",
        )
    if output.per == "step" and "series" not in inputs:
        raise PartError(
            "rnn forecasts a series, and the inputs hold none.", hint="choose task: forecasting"
        )
    if config.bidirectional is True and output.causal:
        raise PartError(
            "bidirectional reads following tokens, and this task must not look ahead.",
            hint="leave bidirectional to auto",
        )


def _row_branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """(A module from one input to (B, width), that width)."""
    from danlu.layers.pooling import AttentionPooling, MaxPooling, MeanPooling
    from danlu.layers.recurrent.sequence_reader import RowVector
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput

    if spec.kind == "categories":
        embedding = CategoryEmbedding(spec.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if spec.kind not in SEQUENCES:
        return TakeInput(name), spec.shape[0]
    reader, size = _reader(config, {name: spec})
    recurrent = _recurrent(config, size, config.bidirectional is not False)
    if config.pooling == "attention":
        pooling: nn.Module | None = AttentionPooling(recurrent.width)
    else:
        kinds = {"max": MaxPooling, "mean": MeanPooling}
        pooling = kinds[config.pooling]() if config.pooling in kinds else None
    return RowVector(reader, recurrent, pooling), recurrent.width


def _reader(config: Config, inputs: Mapping[str, InputSpec]) -> tuple[Reader, int]:
    """(The reader of inputs that share their positions, features per position)."""
    from danlu.layers.recurrent.sequence_reader import Reader
    from danlu.layers.text.embeddings import WordEmbedding

    bodies: list[nn.Module | None] = []
    size = 0
    for spec in inputs.values():
        if spec.kind == "tokens":
            body = WordEmbedding(
                spec.cardinalities,
                spec.names,
                config.embedding,
                letter_size=config.letter_embedding,
                filters=config.letter_filters,
                unknown=config.unknown,
            )
            bodies.append(body)
            size += body.width
        else:
            bodies.append(None)
            size += spec.shape[-1]
    first = next(iter(inputs.values())).kind
    return Reader(list(inputs), bodies, config.dropout if first == "tokens" else 0.0), size


def _recurrent(config: Config, size: int, both: bool) -> Recurrent:
    from danlu.layers.recurrent.rnn import Recurrent

    return Recurrent(
        size,
        config.width,
        cell=config.cell,
        layers=config.num_layers,
        bidirectional=both,
        dropout=config.dropout,
    )


def _forecast(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The network for several steps ahead."""
    from danlu.layers.forecasting.forecaster import ReversibleNorm, SplitVariables
    from danlu.layers.tabular.merging import concatenated
    from danlu.parts.models._recurrent_forecaster import RecurrentForecast

    series = inputs["series"]
    variables = SplitVariables(series, output) if output.of else None
    level = ReversibleNorm(config.level, len(variables.forecast) if variables else 1)
    past = _recurrent(config, series.shape[-1], config.bidirectional is True)
    future = inputs.get("future")
    ahead = (
        None
        if future is None
        else _recurrent(config, future.shape[-1], config.bidirectional is not False)
    )
    branches = [
        _row_branch(config, name, spec)
        for name, spec in inputs.items()
        if name not in ("series", "future")
    ]
    aside = (
        (concatenated([branch for branch, _ in branches]), sum(width for _, width in branches))
        if branches
        else None
    )
    return RecurrentForecast(
        variables, level, past, aside, ahead, output.steps, output.size, config.dropout
    )


def _places(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The network for one output per position."""
    from torch import nn

    from danlu.layers.recurrent.rnn import LockedDropout
    from danlu.layers.recurrent.sequence_reader import GeneratingPlaceOutputs, PlaceOutputs
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput, concatenated
    from danlu.parts.models._crf import TransitionMarginals

    read = {name: spec for name, spec in inputs.items() if spec.kind in SEQUENCES}
    reader, size = _reader(config, read)
    recurrent = _recurrent(config, size, config.bidirectional is not False and not output.causal)
    asides: list[nn.Module] = []
    width = recurrent.width
    for name, spec in inputs.items():
        if name not in read:
            embedding = CategoryEmbedding(spec.cardinalities) if spec.kind == "categories" else None
            asides.append(TakeInput(name, embedding))
            width += embedding.width if embedding is not None else spec.shape[0]
    head = nn.Sequential(LockedDropout(config.dropout), nn.Linear(width, output.size))
    after = TransitionMarginals(output.size) if config.crf else None
    generates = output.causal and not asides and _one_input_of_tokens(list(read.values()))
    form = GeneratingPlaceOutputs if generates else PlaceOutputs
    return form(reader, recurrent, concatenated(asides) if asides else None, head, after)


def _one_input_of_tokens(read: Sequence[InputSpec]) -> bool:
    return len(read) == 1 and read[0].kind == "tokens"
