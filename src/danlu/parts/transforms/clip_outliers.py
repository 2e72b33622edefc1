"""Numbers outside the usual range of the training rows are clipped to its edges.

by: quantiles takes the range from the `lower` to the `upper` quantile. by: interquartile_range
takes Q1 - factor * IQR to Q3 + factor * IQR (Tukey, 1977, Exploratory Data Analysis); a feature
with an IQR of 0 stays unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu.data.matrix import as_matrix, feature_names, number_column, present_values
from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("number",)


class Config(Options):
    """How the usual range is computed."""

    by: Literal["quantiles", "interquartile_range"] = Field(
        default="quantiles", description="How the range is computed."
    )
    lower: float = Field(default=0.01, ge=0, le=1, description="Quantile of the lower edge.")
    upper: float = Field(default=0.99, ge=0, le=1, description="Quantile of the upper edge.")
    factor: float = Field(
        default=1.5,
        gt=0,
        description="Distance of the edges from the quartiles, in interquartile ranges.",
    )

    @model_validator(mode="after")
    def _lower_is_below_upper(self) -> Config:
        if self.lower >= self.upper:
            raise ValueError("lower must be below upper")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"low": (D,), "high": (D,)}: the edges of each feature."""
    edges = [_edges(config, values) for values in present_values(column)]
    return {
        "low": np.array([low for low, _ in edges]),
        "high": np.array([high for _, high in edges]),
    }


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The clipped numbers; a missing one stays missing."""
    values = as_matrix(column)
    return number_column(
        column,
        np.clip(values, state["low"].astype(values.dtype), state["high"].astype(values.dtype)),
        feature_names(column),
    )


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    at = value.at  # comparisons instead of Clip, so that a missing number stays missing
    for operator, edge in (("Less", state["low"]), ("Greater", state["high"])):
        edges = graph.constant(edge)
        at = graph.add("Where", [graph.add(operator, [at, edges]), edges, at])
    return graph.numbers(value, at)


def _edges(config: Config, values: np.ndarray) -> tuple[float, float]:
    most = float(np.finfo(np.float32).max)  # the largest number that a model's input can hold
    if not len(values):
        return -most, most
    if config.by == "quantiles":
        low, high = np.quantile(values, [config.lower, config.upper])
        return float(low), float(high)
    first, third = np.quantile(values, [0.25, 0.75])
    reach = config.factor * (third - first)
    return (float(first - reach), float(third + reach)) if reach > 0 else (-most, most)
