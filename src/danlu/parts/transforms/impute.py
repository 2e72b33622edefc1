"""Missing values become the mean, median or most frequent training value, or a constant.

A number column can gain an indicator feature, 1 where the value was missing: that a value is
missing is often informative. Features that are always missing together (the parts of a date) share
one."""

from __future__ import annotations

from dataclasses import replace
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
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import MISSING_DATETIME, Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("number", "category", "boolean", "datetime")


class Config(Options):
    """What fills gaps, and whether indicators are added."""

    strategy: Literal["auto", "mean", "median", "most_frequent", "constant"] = Field(
        default="auto",
        description="What fills gaps; auto: the median of numbers and date-times, the most "
        "frequent category or boolean.",
    )
    value: bool | float | str | None = Field(
        default=None, description="The constant of strategy constant (a date-time in ISO form)."
    )
    indicator: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether numbers gain an indicator feature, 1 where missing; auto: where "
        "training rows had gaps.",
    )

    @model_validator(mode="after")
    def _a_constant_where_one_is_asked(self) -> Config:
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError(
                "value belongs to strategy constant, and strategy constant needs a value"
            )
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"fill": the value that fills gaps} and, for numbers, {"told": [[index of the feature, name
    of its indicator], ...]}."""
    if column.kind == "number":
        return {
            "fill": _fill_of_numbers(config, column),
            "told": _columns_with_gaps(config, column),
        }
    strategy = config.strategy
    if strategy == "auto":
        strategy = "median" if column.kind == "datetime" else "most_frequent"
    if strategy in ("mean", "median") and column.kind != "datetime":
        raise DataError(
            f"the values of a {column.kind} have no {strategy}.",
            where=f"column {column.name}",
            hint="set strategy of impute to most_frequent or constant",
        )
    if column.kind == "category":
        return {
            "fill": _constant(config, column, str)
            if strategy == "constant"
            else _most_frequent_category(column)
        }
    if strategy == "constant":
        return {
            "fill": int(_constant(config, column, bool))
            if column.kind == "boolean"
            else _moment(config, column)
        }
    values = column.values[~column.is_missing()]
    if not len(values):
        return {"fill": 0}
    if strategy == "most_frequent":
        distinct, counts = np.unique(values, return_counts=True)
        return {"fill": int(distinct[counts.argmax()])}
    if strategy == "mean":
        return {"fill": int(mean_and_deviation(values.astype(np.float64))[0])}
    return {"fill": int(np.partition(values, len(values) // 2)[len(values) // 2])}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The column without gaps; numbers are followed by their 0/1 indicators."""
    if column.kind == "number":
        return _apply_to_numbers(state, column)
    lost = column.is_missing()
    if column.kind != "category":
        return replace(
            column,
            values=np.where(
                lost, np.array(state["fill"], dtype=column.values.dtype), column.values
            ),
        )
    fill, categories = state["fill"], column.categories
    if fill is None:  # no training row had a value to fill with
        return column
    if fill not in categories:
        categories = (*categories, fill)
    code = np.array(categories.index(fill), dtype=column.values.dtype)
    return replace(column, values=np.where(lost, code, column.values), categories=categories)


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    fill = state["fill"]
    if value.kind == "number":
        lost = graph.add("IsNaN", [value.at])
        filled = graph.add("Where", [lost, graph.constant(fill), value.at])
        if not state["told"]:
            return graph.numbers(value, filled)
        places = graph.constant(np.array([column_index for column_index, _ in state["told"]]))
        indicators = graph.cast(graph.add("Gather", [lost, places], axis=1), "float64")
        return graph.numbers(
            value, graph.beside([filled, indicators]), value.width + len(state["told"])
        )
    if fill is None:
        return value
    none, filling = {
        "category": ("", np.array(fill, dtype=object)),
        "boolean": (np.int8(-1), np.int8(fill) if value.kind == "boolean" else None),
        "datetime": (
            np.int64(MISSING_DATETIME),
            np.int64(fill) if value.kind == "datetime" else None,
        ),
    }[value.kind]
    if value.kind == "category":
        there = graph.lookup(value.at, {"": 0}, 1)
        lost = graph.add("Equal", [there, graph.constant(np.int64(0))])
    else:
        lost = graph.add("Equal", [value.at, graph.constant(none)])
    return replace(value, at=graph.add("Where", [lost, graph.constant(filling), value.at]))


def _fill_of_numbers(config: Config, column: Column) -> np.ndarray:
    if config.strategy == "constant":
        return np.full(as_matrix(column).shape[1], float(_constant(config, column, float)))
    return np.array(
        [_fill_of(config.strategy, values) for values in present_values(column)], dtype=np.float64
    )


def _fill_of(strategy: str, values: np.ndarray) -> float:
    if not len(values):
        return 0.0
    if strategy == "mean":
        return mean_and_deviation(values)[0]
    if strategy == "most_frequent":
        distinct, counts = np.unique(values, return_counts=True)
        return float(distinct[counts.argmax()])
    middle = len(values) // 2
    low = middle - 1 + len(values) % 2
    parted = np.partition(values, (low, middle))
    return float(parted[low] / 2 + parted[middle] / 2)  # halved first: the sum could overflow


def _columns_with_gaps(config: Config, column: Column) -> list[list[Any]]:
    values, labels = as_matrix(column), feature_names(column)
    if config.indicator is False:
        return []
    alike: dict[bytes, list[int]] = {}
    for feature in range(values.shape[1]):
        lost = np.isnan(values[:, feature])
        if config.indicator is True or lost.any():
            alike.setdefault(np.packbits(lost).tobytes(), []).append(feature)
    together = [
        column.name if len(places) == len(labels) else labels[places[0]]
        for places in alike.values()
    ]
    return [[places[0], f"{name} is missing"] for places, name in zip(alike.values(), together)]


def _apply_to_numbers(state: dict[str, Any], column: Column) -> Column:
    values, indicators = as_matrix(column), state["told"]
    lost = np.isnan(values)
    if not indicators and not lost.any():
        return column
    width = values.shape[1]
    result = np.empty((len(values), width + len(indicators)), dtype=values.dtype)
    np.copyto(result[:, :width], values)
    np.copyto(result[:, :width], state["fill"].astype(values.dtype), where=lost)
    result[:, width:] = lost[:, [column_index for column_index, _ in indicators]]
    return number_column(
        column, result, [*feature_names(column), *(name for _, name in indicators)]
    )


def _constant(config: Config, column: Column, kind: type) -> Any:
    value = config.value
    if isinstance(value, kind) or (kind is bool and value in (0, 1) and not isinstance(value, str)):
        return value
    words = {str: "text", bool: "true or false", float: "a number"}
    raise DataError(
        f"{value!r} cannot fill gaps of a {column.kind}: it must be {words[kind]}.",
        where=f"column {column.name}",
        hint="change value of impute",
    )


def _moment(config: Config, column: Column) -> int:
    try:
        moment = int(np.datetime64(_constant(config, column, str), "us").astype(np.int64))
    except ValueError:
        moment = MISSING_DATETIME
    if moment == MISSING_DATETIME:
        raise DataError(
            f"{config.value!r} is no date-time.",
            where=f"column {column.name}",
            hint="write value of impute like 2024-01-31 or 2024-01-31T08:00",
        )
    return moment


def _most_frequent_category(column: Column) -> str | None:
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
    if not counts.any():
        return None
    # ties go to the first by name
    return min(column.categories[code] for code in np.flatnonzero(counts == counts.max()))
