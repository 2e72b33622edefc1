"""The signed logarithm of numbers with long tails: sign(x) * log(1 + |x|).

when: skewed changes only features whose skewness over the training rows, E[(x - mean)^3] /
deviation^3, has an absolute value above the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.data.matrix import (
    as_matrix,
    feature_names,
    mean_and_deviation,
    number_column,
    present_values,
)
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("number",)


class Config(Options):
    """Which features are changed."""

    when: Literal["skewed", "always"] = Field(
        default="skewed", description="Which features are changed: skewed ones, or all."
    )
    threshold: float = Field(
        default=1.0, ge=0, description="Absolute skewness above which a feature counts as skewed."
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"features": the indexes of the features that are changed}."""
    chosen = [
        config.when == "always" or abs(_skewness(values)) > config.threshold
        for values in present_values(column)
    ]
    return {"features": [index for index, is_chosen in enumerate(chosen) if is_chosen]}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The numbers, chosen features as signed logarithms; float64 (N, D)."""
    result = as_matrix(column).astype(np.float64)
    for feature in state["features"]:
        # contiguous: numpy's code for strided numbers may round differently
        x = np.ascontiguousarray(result[:, feature])
        result[:, feature] = np.copysign(np.log1p(np.abs(x)), x)
    return number_column(column, result, feature_names(column))


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    grown = graph.add("Add", [graph.add("Abs", [value.at]), graph.constant(np.float64(1))])
    signed = graph.add("Mul", [graph.add("Sign", [value.at]), graph.add("Log", [grown])])
    chosen = np.isin(np.arange(value.width), state["features"])
    return graph.numbers(value, graph.add("Where", [graph.constant(chosen), signed, value.at]))


def _skewness(values: np.ndarray) -> float:
    mean, deviation = mean_and_deviation(values)
    return float(np.power((values - mean) / deviation, 3).mean()) if deviation else 0.0
