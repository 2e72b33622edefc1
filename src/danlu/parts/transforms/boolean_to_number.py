"""True and false as 1 and 0. A missing value stays missing, so let impute follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.data.matrix import number_column
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("boolean",)


class Config(Options):
    """No options."""


def fit(config: Config, column: Column) -> dict[str, Any]:
    """Nothing is learnt."""
    return {}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float64: 1, 0 or NaN."""
    values = np.where(column.values < 0, np.nan, column.values.astype(np.float64))
    return number_column(column, values[:, None], [column.name])


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    lost = graph.add("Less", [value.at, graph.constant(np.int8(0))])
    numbers = graph.add(
        "Where", [lost, graph.constant(np.float64(np.nan)), graph.cast(value.at, "float64")]
    )
    return graph.numbers(value, graph.reshape(numbers, -1, 1), 1)
