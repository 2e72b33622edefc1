"""Numbers brought to one scale: standard, min_max, robust, quantile or rows_and_values.

  standard  (x - mean) / standard deviation
  min_max   (x - minimum) / (maximum - minimum)
  robust    (x - median) / interquartile range
  quantile  the rank of x among the training rows, mapped to the uniform distribution on [0, 1] or
            to the standard normal (rank-based inverse normal transform; Blom, 1958)
  rows_and_values
            as quantile, by the mean of the ranks of x among the rows and among their distinct
            values: a column that mostly holds one value keeps its other values apart

The quantile scales store `quantiles` knots and interpolate linearly between them; outside the range
of the training rows they are constant. A feature with a single value becomes 0. A feature that
holds only 0 and 1 is a flag and stays unchanged: dividing a rare flag by its small standard
deviation would give very large numbers. Missing values stay missing and are not counted."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

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
_BY_RANK = ("quantile", "rows_and_values")


class Config(Options):
    """Which scale."""

    by: Literal["standard", "min_max", "robust", "quantile", "rows_and_values"] = Field(
        default="standard", description="Which scale."
    )
    distribution: Literal["normal", "uniform"] = Field(
        default="normal", description="Distribution that the quantile scale maps to."
    )
    quantiles: int = Field(
        default=1000,
        ge=2,
        le=100_000,
        description="Knots of the quantile scale, at most one per training row.",
    )
    keep_flags: bool = Field(
        default=True, description="Leave features unchanged whose training values are only 0 and 1."
    )

    @model_validator(mode="after")
    def _distribution_is_for_quantiles(self) -> Config:
        if self.distribution == "uniform" and self.by not in _BY_RANK:
            raise ValueError(
                "distribution uniform needs by quantile (min_max gives numbers from 0 to 1 as well)"
            )
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"center": (D,), "scale": (D,)}; for quantile {"knots": (D, K), "heights": (K,), "flags":
    (D,) of 0 and 1}."""
    if config.by in _BY_RANK:
        return _fit_quantiles(config, column)
    pairs = [_center_and_scale(config, values) for values in present_values(column)]
    return {
        "center": np.array([center for center, _ in pairs]),
        "scale": np.array([scale for _, scale in pairs]),
    }


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The scaled numbers, float64 (N, D)."""
    values = as_matrix(column)
    # a number that overflows becomes infinite; the preprocessing raises an error that names it
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (
            _apply_quantiles(state, values)
            if config.by in _BY_RANK
            else (values - state["center"]) / state["scale"]
        )
    return number_column(column, scaled, feature_names(column))


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    if config.by in _BY_RANK:
        return graph.numbers(value, _quantile_graph(state, graph, value))
    centered = graph.add("Sub", [value.at, graph.constant(state["center"])])
    return graph.numbers(value, graph.add("Div", [centered, graph.constant(state["scale"])]))


def _quantile_graph(state: dict[str, Any], graph: Graph, value: Value) -> str:
    """Feature by feature: the mean of interpolating upward and downward between its knots."""
    features = []
    for feature, knots in enumerate(state["knots"]):
        x = graph.add("Gather", [value.at, graph.constant(np.array([feature]))], axis=1)
        if state["flags"][feature]:
            features.append(x)
            continue
        upward = _between_graph(graph, x, knots, state["heights"])
        downward = _between_graph(
            graph, graph.add("Neg", [x]), -knots[::-1], -state["heights"][::-1]
        )
        total = graph.add("Sub", [upward, downward])
        features.append(graph.add("Div", [total, graph.constant(np.float64(2))]))
    return graph.beside(features)


def _between_graph(graph: Graph, x: str, knots: np.ndarray, heights: np.ndarray) -> str:
    """numpy.interp of x (N, 1) in a graph: from the last knot that x reaches, along the line to the
    next one."""
    reached = graph.cast(graph.add("GreaterOrEqual", [x, graph.constant(knots)]), "int64")
    count = graph.add("ReduceSum", [reached, graph.constant(np.array([1]))], keepdims=1)
    interval = graph.add(
        "Max", [graph.add("Sub", [count, graph.constant(np.int64(1))]), graph.constant(np.int64(0))]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.append(np.diff(heights) / np.diff(knots), 0.0)
    slopes[~np.isfinite(slopes)] = 0.0  # no number lies between equal knots
    low, height, slope = (
        graph.add("Gather", [graph.constant(np.ascontiguousarray(array)), interval])
        for array in (knots, heights, slopes)
    )
    # below the first knot: its height
    inside = graph.add("Where", [graph.add("Less", [x, low]), low, x])
    return graph.add("Add", [graph.add("Mul", [graph.add("Sub", [inside, low]), slope]), height])


def _center_and_scale(config: Config, values: np.ndarray) -> tuple[float, float]:
    if config.keep_flags and _is_flag(values):
        return 0.0, 1.0
    if not len(values):
        return 0.0, 1.0
    if config.by == "standard":
        center, scale = mean_and_deviation(values)
    elif config.by == "min_max":
        center, scale = float(values.min()), _distance(values.min(), values.max())
    else:
        first, center, third = (
            float(quantile) for quantile in np.quantile(values, [0.25, 0.5, 0.75])
        )
        scale = _distance(first, third)
    return center, scale or 1.0


def _distance(low: float, high: float) -> float:
    return float(min(float(high) / 2 - float(low) / 2, np.finfo(np.float64).max / 2) * 2)


def _is_flag(values: np.ndarray) -> bool:
    return (
        bool(len(values))
        and values.min() == 0
        and values.max() == 1
        and bool(((values == 0) | (values == 1)).all())
    )


def _fit_quantiles(config: Config, column: Column) -> dict[str, Any]:
    features = list(present_values(column))
    count = max(2, min(config.quantiles, len(column)))
    shares = np.linspace(0, 1, count)
    knots = np.zeros((len(features), count))
    for knot, values in zip(knots, features):
        if len(values):
            # rounding must not swap two knots
            quantiles = _blended_quantiles if config.by == "rows_and_values" else np.quantile
            knot[:] = np.maximum.accumulate(quantiles(values, shares))
    heights = shares
    if config.distribution == "normal":
        normal = NormalDist()
        heights = np.array([normal.inv_cdf((index + 0.5) / count) for index in range(count)])
    flags = [int(config.keep_flags and _is_flag(values)) for values in features]
    return {"knots": knots, "heights": heights, "flags": np.array(flags, dtype=np.int64)}


def _blended_quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The quantiles at `shares` of a distribution of which the rows make one half, and the distinct
    values, all equally likely, the other."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == len(values):
        return np.quantile(values, shares)
    reached = np.cumsum(counts / (2 * len(values)) + 1 / (2 * len(distinct)))
    return distinct[np.searchsorted(reached, shares).clip(max=len(distinct) - 1)]


def _apply_quantiles(state: dict[str, Any], values: np.ndarray) -> np.ndarray:
    result = values.astype(np.float64)
    heights = state["heights"]
    for feature, knots in enumerate(state["knots"]):
        if state["flags"][feature]:
            continue
        x = np.ascontiguousarray(result[:, feature])
        upward = np.interp(x, knots, heights)
        downward = -np.interp(-x, -knots[::-1], -heights[::-1])
        # the middle rank of a value that many rows share
        result[:, feature] = (upward + downward) / 2
    return result
