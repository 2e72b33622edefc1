"""The step of a time series: its length, the season it implies, and the times that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from danlu.errors import DataError
from danlu.terms import Column

Unit = Literal["rows", "number", "microseconds", "months"]
_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND
_REGULAR = 0.5  # share of the distances that must be the step, or the times have none


@dataclass(frozen=True)
class TimeStep:
    """The distance from one moment of a series to the next.

    unit     "rows" (the order of rows is the time), "number", "microseconds" or "months"
    count    how many units one step has
    column   the name of the column of times; "" for "rows"

    >>> hour = TimeStep("microseconds", 3_600_000_000, "time")
    >>> hour.describe(), hour.season, hour.after(np.array([0]), 2).tolist()
    ('1 hour', 24, [[3600000000, 7200000000]])
    """

    unit: Unit = "rows"
    count: float = 1
    column: str = ""

    def state(self) -> dict[str, Any]:
        """The step as JSON values; TimeStep(**state) equals it."""
        return {"unit": self.unit, "count": self.count, "column": self.column}

    @property
    def season(self) -> int:
        """How many steps one season has, at least 1: steps of minutes or hours have a season of a
        day, days of a week, weeks and months of a year; 1 where there is no season."""
        if self.unit == "months":
            return max(1, round(12 / self.count))
        if self.unit != "microseconds":
            return 1
        cycles = (
            (_MINUTE, _MINUTE),
            (_DAY, _DAY),
            (7 * _DAY, 7 * _DAY),
            (28 * _DAY, 365.25 * _DAY),
        )
        whole = next((length for below, length in cycles if self.count < below), 365.25 * _DAY)
        return max(1, round(whole / self.count))

    def after(self, times: np.ndarray, steps: int) -> np.ndarray:
        """The `steps` times after each of `times` (M,), as (M, steps), in the unit of the
        column."""
        ahead = np.arange(1, steps + 1)
        if self.unit == "months":
            return _month_times(times[:, None], ahead * int(self.count))
        if self.unit == "microseconds":
            return times[:, None] + ahead * int(self.count)
        return times[:, None] + ahead * self.count

    def describe(self) -> str:
        """The step in words: '1 hour', '15 minutes', '3 months', '0.5'."""
        if self.unit == "months":
            return _counted(self.count, "month")
        if self.unit == "microseconds":
            for name, length in (
                ("day", _DAY),
                ("hour", _HOUR),
                ("minute", _MINUTE),
                ("second", _SECOND),
            ):
                if self.count % length == 0:
                    return _counted(self.count // length, name)
            return f"{self.count / _SECOND:g} seconds"
        return f"{self.count:g}" if self.unit == "number" else "1 row"


def _counted(count: float, name: str) -> str:
    return f"{count:g} {name}{'' if count == 1 else 's'}"


def infer_step(column: Column | None, same: np.ndarray) -> TimeStep | None:
    """The most frequent distance from a time to the next; None where no row has a next one.

    column   the times, sorted within each series; None: the step is one row
    same     bool (N,), whether the next row is of the same series
    Distances of 28 days and more are counted in calendar months where that is at least as regular.
    Raises DataError where fewer than half of the distances are the most frequent one.

    >>> days = Column("day", "number", np.array([1.0, 2.0, 3.0, 5.0]))
    >>> infer_step(days, np.array([True, True, True, False])).count
    1.0
    """
    if column is None:
        return TimeStep()
    inside = np.flatnonzero(same[:-1])
    if not len(inside):
        return None
    apart = column.values[inside + 1] - column.values[inside]
    if column.kind == "number":
        apart = apart.round(9)
    distances, counts = np.unique(apart, return_counts=True)
    step = TimeStep(
        "number" if column.kind == "number" else "microseconds",
        distances[counts.argmax()].item(),
        column.name,
    )
    share = counts.max() / len(apart)
    if column.kind == "datetime" and distances[0] >= 28 * _DAY:
        months = _months(column.values)
        counted, often = np.unique(months[inside + 1] - months[inside], return_counts=True)
        if often.max() / len(apart) >= share and counted[often.argmax()] > 0:
            step, share = (
                TimeStep("months", counted[often.argmax()].item(), column.name),
                often.max() / len(apart),
            )
    if share < _REGULAR:
        raise DataError(
            f"the times have no regular step: the most frequent distance ({step.describe()}) is "
            f"that of only {100 * share:.0f} % of the rows.",
            where=f"column {column.name}",
            hint="bring the rows to regular times, or set task.gaps: ignore to count each row as "
            "one step",
        )
    return step


def steps_between(times: np.ndarray, step: TimeStep) -> np.ndarray:
    """How many steps each time is before the next, float64 (N - 1,): 1 where the next moment
    follows.

    >>> steps_between(np.array([0.0, 0.5, 1.5]), TimeStep("number", 0.5, "t")).tolist()
    [1.0, 2.0]
    """
    if step.unit == "months":
        return np.diff(_months(times)) / step.count
    steps = np.diff(times) / step.count
    # times such as 0.1, 0.2, 0.3 are not exact in floating point
    return np.where(np.abs(steps - 1) < 1e-6, 1.0, steps)


def _months(times: np.ndarray) -> np.ndarray:
    """Months since 1970; the last day of a month counts as the next month's first, so that both
    ways of dating agree."""
    return (times + _DAY).astype("M8[us]").astype("M8[M]").astype(np.int64)


def _month_times(times: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """`times` moved by months: the same day of the month, the last one where the month is shorter
    or the day was its last."""
    moments = times.astype("M8[us]")
    month = moments.astype("M8[M]")
    day = (moments.astype("M8[D]") - month.astype("M8[D]")).astype(np.int64)
    within = times - moments.astype("M8[D]").astype("M8[us]").astype(np.int64)
    was_last = (moments.astype("M8[D]") + 1).astype("M8[M]") != month
    goal = month + ahead
    last = ((goal + 1).astype("M8[D]") - goal.astype("M8[D]")).astype(np.int64) - 1
    return (goal.astype("M8[D]") + np.where(was_last, last, np.minimum(day, last))).astype(
        "M8[us]"
    ).astype(np.int64) + within
