"""Categories with an order (small, medium, large) as their rank: 0, 1, 2, ...

A missing category, or one that the order does not name, is missing: let impute follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from danlu.data.matrix import number_column
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("category",)


class Config(Options):
    """The order of the categories."""

    order: list[str] = Field(
        default=[],
        description="The categories from least to most; empty: those of the training rows, by "
        "name.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Config:
        if len(set(self.order)) < len(self.order):
            raise ValueError("order must name each category once")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"order": the categories from least to most}. DataError for a training category that the
    order leaves out."""
    seen = sorted(column.categories[code] for code in np.unique(column.values[column.values >= 0]))
    left_out = [category for category in seen if category not in config.order]
    if config.order and left_out:
        raise DataError(
            f"{left_out[0]!r} is not in the order given to ordinal (of such categories there are "
            f"{len(left_out):,}).",
            where=f"column {column.name}",
            hint=f"the column holds {', '.join(seen[:20])}",
        )
    return {"order": config.order or seen}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float64; NaN where missing or unknown."""
    rank_of = {category: float(index) for index, category in enumerate(state["order"])}
    lookup = np.array([*(rank_of.get(category, np.nan) for category in column.categories), np.nan])
    # code -1 (missing) takes the last entry of lookup
    return number_column(column, lookup[column.values][:, None], [column.name])


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    places = graph.lookup(
        value.at, {category: rank for rank, category in enumerate(state["order"])}, -1
    )
    lost = graph.add("Less", [places, graph.constant(np.int64(0))])
    numbers = graph.add(
        "Where", [lost, graph.constant(np.float64(np.nan)), graph.cast(places, "float64")]
    )
    return graph.numbers(value, graph.reshape(numbers, -1, 1), 1)
