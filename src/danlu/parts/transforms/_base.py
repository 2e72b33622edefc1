"""The contract of a transform: a column to the next column, until it is what a model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value
    from danlu.recipe import Options
    from danlu.terms import Column, Kind

# What `fit` learnt: JSON values and numpy arrays of finite numbers, by name.
TransformState = dict[str, object]


@dataclass(frozen=True)
class Transform:
    """What a transform's module offers; `danlu.registry.transform(name)` reads it.

    numpy only (and, for tokens, the tokenizers library): whole columns at a time, no Python loop
    over rows.
    """

    # The kinds of column it accepts.
    takes: tuple[Kind, ...] = field(metadata={"name": "TAKES"})

    # fit(config, column) -> state: what it learns from the training rows. The state is stored in
    # the artifact. Three of its keys are read by others: "notice", a sentence for the user; of an
    # image "pixels", {"mean": [...], "std": [...]} by channel, by which batches are scaled; of
    # tokens and frames "longest", the length of the longest row that a model must be ready for.
    # Categories are learnt by their text, never by their code or position in the column's
    # `categories`, which differ from table to table.
    fit: Callable[[Options, Column], TransformState]

    # apply(config, state, column) -> Column: the changed column, with the same number of rows (any,
    # down to 1); never changes its argument. A value that training never saw is allowed and never
    # raises. Row i of the answer depends on row i alone, to the last bit, so that a row served
    # alone gets the answer it gets among others.
    apply: Callable[[Options, TransformState, Column], Column]

    # graph(config, state, graph, value) -> Value: `apply` as nodes of an ONNX graph, for exports.
    # None: the transform runs outside of the graph.
    graph: Callable[[Options, TransformState, Graph, Value], Value] | None = None
