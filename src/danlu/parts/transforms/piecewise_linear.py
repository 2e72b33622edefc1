"""Piecewise linear encoding: one feature per bin, rising from 0 to 1 as the number crosses the bin.

    feature_t = clamp((x - edge_t) / (edge_{t+1} - edge_t), 0, 1)

The first feature is not clamped below 0, the last not above 1. Linear maps of these features are
all continuous functions that are linear within each bin, so a network can follow the steps of a
column from the start, as trees do. Edges are quantiles of the training rows (by: rows), or of their
distinct values (by: values), which resolves the rare large values of a column that mostly holds one
value. Missing values stay missing.
Source: Gorishniy et al., 2022, arXiv:2203.05556.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.data.matrix import as_matrix, feature_names, number_column, present_values
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("number",)


class Config(Options):
    """How many bins there are, and where their edges lie."""

    bins: int = Field(
        default=48,
        ge=1,
        le=10_000,
        description="Bins of each feature; fewer where edges would be equal.",
    )
    by: Literal["rows", "values"] = Field(
        default="rows",
        description="rows: bins of equally many training rows; values: of equally many distinct "
        "values.",
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"edges": float64 (E,), the edges of all features concatenated; "counts": int64 (D,), edges
    per feature}."""
    edges = [_edges(config, values) for values in present_values(column)]
    return {
        "edges": np.concatenate(edges),
        "counts": np.array([len(bins) for bins in edges], dtype=np.int64),
    }


def _edges(config: Config, values: np.ndarray) -> np.ndarray:
    """The edges of one feature, ascending; none where it has a single value."""
    if not len(values):
        return np.zeros(0)
    counted = np.unique(values) if config.by == "values" else values
    edges = np.unique(np.quantile(counted, np.linspace(0, 1, config.bins + 1)))
    with np.errstate(over="ignore"):
        return edges if len(edges) > 1 and np.isfinite(edges[-1] - edges[0]) else np.zeros(0)


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column with one float64 feature per bin, named column[low..high]."""
    values = as_matrix(column)
    counts = [int(count) for count in state["counts"]]
    edges_of = np.split(state["edges"], np.cumsum(counts)[:-1])
    pieces = [_pieces(values[:, feature], edges) for feature, edges in enumerate(edges_of)]
    called = [
        f"{name}[{low:g}..{high:g}]"
        for name, edges in zip(feature_names(column), edges_of, strict=True)
        for low, high in itertools.pairwise(edges)
    ]
    return number_column(column, np.concatenate(pieces, axis=1), called)


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    pieces, width = [], 0
    for feature, edges in enumerate(np.split(state["edges"], np.cumsum(state["counts"])[:-1])):
        if len(edges) < 2:
            continue
        x = graph.add("Gather", [value.at, graph.constant(np.array([feature]))], axis=1)
        share = graph.add(
            "Div",
            [graph.add("Sub", [x, graph.constant(edges[:-1])]), graph.constant(np.diff(edges))],
        )
        lowest, highest = np.zeros(len(edges) - 1), np.ones(len(edges) - 1)
        lowest[0], highest[-1] = -np.inf, np.inf
        for operator, edge in (("Less", lowest), ("Greater", highest)):
            bounds = graph.constant(edge)
            share = graph.add("Where", [graph.add(operator, [share, bounds]), bounds, share])
        pieces.append(share)
        width += len(edges) - 1
    return graph.numbers(value, graph.beside(pieces), width)


def _pieces(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 (N, bins) of one feature."""
    if len(edges) < 2:
        return np.zeros((len(values), 0))
    # a number that overflows becomes infinite; the preprocessing raises an error that names it
    with np.errstate(over="ignore", invalid="ignore"):
        share = (values[:, None].astype(np.float64) - edges[:-1]) / np.diff(edges)
    lowest = np.zeros(share.shape[1])
    highest = np.ones(share.shape[1])
    lowest[0], highest[-1] = -np.inf, np.inf
    return np.clip(share, lowest, highest)
