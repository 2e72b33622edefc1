"""A date-time as numbers: year, month, day, weekday, ...; periodic parts as sine and cosine.

A part with a period becomes the sine and cosine of 2 pi part / period, so that December is next to
January. Parts that are equal in all training rows (the hour of plain dates) are left out. Times are
UTC. A missing date-time is missing in all parts, so let impute follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.data.matrix import number_column
from danlu.recipe import Options
from danlu.terms import MISSING_DATETIME, Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("datetime",)
# name -> first value, period (0: not periodic)
_PARTS = {
    "year": (0, 0),
    "month": (1, 12),
    "day": (1, 31),
    "day_of_year": (1, 366),
    "weekday": (0, 7),
    "hour": (0, 24),
    "minute": (0, 60),
    "second": (0, 60),
    "days": (0, 0),
}
_DAY = 86_400_000_000  # microseconds


class Config(Options):
    """Which parts, and in which form."""

    parts: list[
        Literal[
            "year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second", "days"
        ]
    ] = Field(
        default=["year", "month", "day", "weekday", "hour", "minute"],
        min_length=1,
        description="The parts; weekday is 0 on Monday; days counts days since 1970, with "
        "fractions.",
    )
    cyclic: bool = Field(
        default=True,
        description="Periodic parts as sine and cosine; false: as plain numbers.",
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"parts": the parts that differ among the training rows; the first part if none does}."""
    moments = column.values[~column.is_missing()]
    differing = [
        part
        for part in dict.fromkeys(config.parts)
        if len(moments) and np.ptp(_part(part, moments)) > 0
    ]
    return {"parts": differing or config.parts[:1]}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float64: one feature per plain part, two per cyclic one."""
    lost = column.is_missing()
    moments = np.where(lost, 0, column.values)
    features: list[np.ndarray] = []
    names: list[str] = []
    for part in state["parts"]:
        values = _part(part, moments)
        first, period = _PARTS[part]
        if config.cyclic and period:
            # a table: vectorised sines may round differently from row to row
            angle = 2 * np.pi * np.arange(period) / period
            features += [np.sin(angle)[values - first], np.cos(angle)[values - first]]
            names += [f"{column.name} {part} sine", f"{column.name} {part} cosine"]
        else:
            features.append(values.astype(np.float64))
            names.append(f"{column.name} {part}")
    matrix = np.stack(features, axis=1)
    matrix[lost] = np.nan
    return number_column(column, matrix, names)


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph: integer arithmetic on microseconds, rounding down (before 1970
    too)."""
    whole = _Whole(graph)
    lost = graph.add("Equal", [value.at, whole.number(MISSING_DATETIME)])
    moments = graph.add("Where", [lost, whole.number(0), value.at])
    features = []
    for part in state["parts"]:
        first, period = _PARTS[part]
        values = _part_graph(whole, part, moments)
        if config.cyclic and period:
            angle = 2 * np.pi * np.arange(period) / period
            offset = whole.minus(values, whole.number(first))
            features += [
                graph.add("Gather", [graph.constant(table), offset])
                for table in (np.sin(angle), np.cos(angle))
            ]
        else:
            features.append(graph.cast(values, "float64"))
    gone = graph.reshape(lost, -1, 1)
    matrix = graph.beside([graph.reshape(feature, -1, 1) for feature in features])
    return graph.numbers(
        value, graph.add("Where", [gone, graph.constant(np.float64(np.nan)), matrix]), len(features)
    )


class _Whole:
    """Integer arithmetic in a graph; division rounds down."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def number(self, value: int) -> str:
        return self.graph.constant(np.int64(value))

    def minus(self, one: str, other: str) -> str:
        return self.graph.add("Sub", [one, other])

    def plus(self, one: str, other: str) -> str:
        return self.graph.add("Add", [one, other])

    def times(self, one: str, by: int) -> str:
        return self.graph.add("Mul", [one, self.number(by)])

    def rest(self, one: str, by: int) -> str:
        return self.graph.add("Mod", [one, self.number(by)])  # has the sign of the divisor

    def over(self, one: str, by: int) -> str:
        return self.graph.add("Div", [self.minus(one, self.rest(one, by)), self.number(by)])


def _part_graph(whole: _Whole, part: str, moments: str) -> str:
    if part == "days":
        return whole.graph.add(
            "Div", [whole.graph.cast(moments, "float64"), whole.graph.constant(np.float64(_DAY))]
        )
    day = whole.over(moments, _DAY)
    if part == "weekday":
        return whole.rest(whole.plus(day, whole.number(3)), 7)
    if part in ("hour", "minute", "second"):
        seconds = whole.over(whole.rest(moments, _DAY), 1_000_000)
        if part == "hour":
            return whole.over(seconds, 3600)
        return (
            whole.rest(whole.over(seconds, 60), 60) if part == "minute" else whole.rest(seconds, 60)
        )
    year, month, of_month = _civil(whole, day)
    if part == "day_of_year":
        return whole.plus(whole.minus(day, _new_year(whole, year)), whole.number(1))
    return {"year": year, "month": month, "day": of_month}[part]


def _civil(whole: _Whole, day: str) -> tuple[str, str, str]:
    """(year, month, day) of a day number since 1970, by eras of 400 years that begin in March.

    Source: H. Hinnant, 2013, chrono-compatible low-level date algorithms, civil_from_days.
    """
    shifted = whole.plus(day, whole.number(719_468))
    era, of_era = whole.over(shifted, 146_097), whole.rest(shifted, 146_097)
    lean = whole.minus(of_era, whole.over(of_era, 1460))
    lean = whole.minus(whole.plus(lean, whole.over(of_era, 36_524)), whole.over(of_era, 146_096))
    years = whole.over(lean, 365)
    of_year = whole.minus(
        of_era,
        whole.minus(
            whole.plus(whole.times(years, 365), whole.over(years, 4)), whole.over(years, 100)
        ),
    )
    month = whole.over(whole.plus(whole.times(of_year, 5), whole.number(2)), 153)  # 0 is March
    of_month = whole.plus(
        whole.minus(of_year, whole.over(whole.plus(whole.times(month, 153), whole.number(2)), 5)),
        whole.number(1),
    )
    late = whole.over(month, 10)  # January and February belong to the next year
    usual = whole.minus(whole.plus(month, whole.number(3)), whole.times(late, 12))
    return whole.plus(whole.plus(years, whole.times(era, 400)), late), usual, of_month


def _new_year(whole: _Whole, year: str) -> str:
    """The day number since 1970 of 1 January of a year."""
    before = whole.minus(year, whole.number(1))
    leaps = whole.plus(
        whole.minus(whole.over(before, 4), whole.over(before, 100)), whole.over(before, 400)
    )
    return whole.minus(whole.plus(whole.times(before, 365), leaps), whole.number(719_162))


def _part(part: str, moments: np.ndarray) -> np.ndarray:
    """One part of each moment (int64 microseconds since 1970), int64; days as float64."""
    if part == "days":
        return moments / _DAY
    day, within = np.divmod(moments, _DAY)
    if part == "weekday":
        return (day + 3) % 7  # 1 January 1970 was a Thursday
    if part in ("hour", "minute", "second"):
        seconds = within // 1_000_000
        return (
            seconds // 3600
            if part == "hour"
            else seconds // 60 % 60
            if part == "minute"
            else seconds % 60
        )
    dates = day.astype("M8[D]")
    if part == "day":
        return (dates - dates.astype("M8[M]")).astype(np.int64) + 1
    if part == "day_of_year":
        return (dates - dates.astype("M8[Y]")).astype(np.int64) + 1
    if part == "month":
        return dates.astype("M8[M]").astype(np.int64) % 12 + 1
    return dates.astype("M8[Y]").astype(np.int64) + 1970
