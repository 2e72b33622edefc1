"""Recurrent network: vanilla, GRU or LSTM cells over texts, series and recordings, in one direction or both.

Words become embeddings (their letters go through a small convolution), dropout hits embeddings and states alike, and the states of
the last layer become
  one output a row       a pooling over the places (their largest values, or attention, the mean, the last state), then linear
  one output a place     linear at every place: labels of words, the next token (in one direction, so that nothing looks ahead)
  several steps ahead    linear from the last state, each window on its own level (`level`); what is known ahead adds to each step
Several texts of a row are read apart and joined late; for an output at every place they must have the same places and are joined there.
Numbers and categories join after the reading. `crf` couples the labels of neighbouring places (danlu/parts/models/_crf.py).
Sources: danlu/layers/recurrent/rnn.py and words.py name them.
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
    """Which cell, how wide, and what keeps it from learning by heart."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of an rnn whose weights and tokenizer this model starts from.",
    )
    cell: Literal["vanilla", "gru", "lstm"] = Field("lstm", description="The recurrent cell.")
    width: int = Field(
        128, ge=1, le=65536, description="Numbers of the state of each layer and direction."
    )
    num_layers: int = Field(1, ge=1, le=64, description="Layers of cells, one above the other.")
    bidirectional: bool | Literal["auto"] = Field(
        "auto",
        description="Whether rows are read from both ends; auto: yes, but for forecasts and where outputs must not look ahead.",
    )
    embedding: int = Field(128, ge=1, le=65536, description="Numbers that stand for a token.")
    letter_embedding: int = Field(
        32,
        ge=1,
        le=4096,
        description="Numbers that stand for a letter of a word (vocabulary: characters).",
    )
    letter_filters: int = Field(
        64, ge=1, le=65536, description="Filters over the letters of a word."
    )
    pooling: Literal["max", "mean", "attention", "last"] = Field(
        "max",
        description="How the places of a row become one vector, where there is one output a row.",
    )
    dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Share of the numbers dropped in training: of embeddings, states, features.",
    )
    unknown: float = Field(
        0.02, ge=0, lt=1, description="Share of the tokens that training reads as unknown."
    )
    level: Literal["none", "last", "standard"] = Field(
        "standard",
        description="Of forecasts: what each window is brought to before it is read, and its outputs back from: minus its last value, "
        "or minus its mean and divided by its deviation.",
    )
    crf: bool = Field(
        False,
        description="Couple the labels of neighbouring places by learnt transitions (one output a place only).",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is nothing to read, and for directions or outputs
    that exclude each other."""
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
            "crf couples the labels of places, and this task asks for no label a place.",
            hint="leave crf out",
        )
    if config.crf and output.causal:
        raise PartError(
            "crf looks at the labels that follow, and this task must not look ahead.",
            hint="leave crf out",
        )
    if output.per == "step" and "series" not in inputs:
        raise PartError(
            "rnn forecasts a series, and the inputs hold none.", hint="choose task: forecasting"
        )
    if config.bidirectional is True and output.causal:
        raise PartError(
            "bidirectional reads what follows a place, and this task must not look ahead.",
            hint="leave bidirectional to auto",
        )


def _row_branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """What takes one input to (B, width), and width."""
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
    """What reads inputs of the same places, and how many numbers it makes of a place."""
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
    """Several steps ahead."""
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
    """One output a place."""
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
