"""One 0/1 feature per category; all are 0 for a missing category, or one unknown in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.data.matrix import number_column
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("category",)


class Config(Options):
    """The largest number of features."""

    maximum: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most categories with a feature; the most frequent of the training rows get "
        "one.",
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"known": the categories that have a feature, sorted}."""
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
    seen = [(-int(counts[code]), column.categories[code]) for code in np.flatnonzero(counts)]
    categories = sorted(category for _, category in sorted(seen)[: config.maximum])
    if len(categories) == len(seen):
        return {"known": categories}
    return {
        "known": categories,
        "notice": f"of {len(seen):,} categories the {len(categories):,} most frequent have a "
        "feature; the others count as unknown.",
    }


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column with one float32 feature per known category, named column=category."""
    categories = state["known"]
    index_of = {category: index for index, category in enumerate(categories)}
    lookup = np.array(
        [*(index_of.get(category, -1) for category in column.categories), -1], dtype=np.int64
    )
    places = lookup[column.values]  # code -1 (missing) takes the last entry
    hot = np.flatnonzero(places >= 0)
    values = np.zeros((len(column), len(categories)), dtype=np.float32)
    values[hot, places[hot]] = 1
    return number_column(column, values, [f"{column.name}={category}" for category in categories])


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    places = graph.lookup(
        value.at, {category: index for index, category in enumerate(state["known"])}, -1
    )
    indexes = graph.constant(np.arange(len(state["known"])))
    hot = graph.cast(graph.add("Equal", [graph.reshape(places, -1, 1), indexes]), "float64")
    return graph.numbers(value, hot, len(state["known"]))
