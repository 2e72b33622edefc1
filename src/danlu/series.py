"""Rows of a table as moments of one or several series: their order, the step between them, runs without a gap, the times ahead.

A run is a stretch of rows of one series that follow each other step by step; nothing that is cut from a table crosses its ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from danlu.errors import DataError, did_you_mean
from danlu.fingerprints import codes
from danlu.terms import Column, Table

Unit = Literal["rows", "number", "microseconds", "months"]
_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND
_LONGEST_MONTH = 32 * _DAY
_REGULAR = 0.5  # share of the distances that must be the step, or the times have none


@dataclass(frozen=True)
class Step:
    """The distance from one moment to the next: `count` of `unit`; `column` holds the times ("": the order of the rows is the time)."""

    unit: Unit = "rows"
    count: float = 1
    column: str = ""

    def state(self) -> dict[str, Any]:
        """JSON values that Step(**...) makes an equal step of."""
        return {"unit": self.unit, "count": self.count, "column": self.column}

    @property
    def season(self) -> int:
        """How many steps the natural cycle has: a day of hours or minutes, a week of days, a year of weeks or months; 1 for none."""
        if self.unit == "months":
            return max(1, round(12 / self.count))
        if self.unit != "microseconds":
            return 1
        cycles = ((_MINUTE, _MINUTE), (_DAY, _DAY), (7 * _DAY, 7 * _DAY), (28 * _DAY, 365.25 * _DAY))
        whole = next((length for below, length in cycles if self.count < below), 365.25 * _DAY)
        return max(1, round(whole / self.count))

    def after(self, times: np.ndarray, steps: int) -> np.ndarray:
        """The `steps` times that follow each of `times` (M,), (M, steps), of the kind of the column."""
        ahead = np.arange(1, steps + 1)
        if self.unit == "months":
            return _month_times(times[:, None], ahead * int(self.count))
        if self.unit == "microseconds":
            return times[:, None] + ahead * int(self.count)
        return times[:, None] + ahead * self.count

    def describe(self) -> str:
        """'1 hour', '15 minutes', '3 months', '0.5'."""
        if self.unit == "months":
            return _counted(self.count, "month")
        if self.unit == "microseconds":
            for name, length in (("day", _DAY), ("hour", _HOUR), ("minute", _MINUTE), ("second", _SECOND)):
                if self.count % length == 0:
                    return _counted(self.count // length, name)
            return f"{self.count / _SECOND:g} seconds"
        return f"{self.count:g}" if self.unit == "number" else "1 row"


def _counted(count: float, name: str) -> str:
    return f"{count:g} {name}{'' if count == 1 else 's'}"


def time_of(table: Table, name: str | None) -> Column | None:
    """The column of the times: that called `name`, else the one date-time column; None where there is none.

    Raises DataError for a name that is not there, a column that is no time, and several date-time columns to choose from.
    """
    if name is not None:
        column = _column(table, name, "task.time")
        if column.kind not in ("datetime", "number") or column.values.ndim > 1:
            raise DataError(
                f"task.time names the column {name}, which holds {column.kind}; times are date-times or numbers.",
                where=table.origin,
                hint=f"set data.columns.{name}.kind: datetime",
            )
        return column
    found = [column for column in table.columns.values() if column.kind == "datetime"]
    if len(found) > 1:
        raise DataError(
            f"there are {len(found)} date-time columns ({', '.join(column.name for column in found[:5])}).",
            where=table.origin,
            hint="name in task.time the one that orders the rows",
        )
    return found[0] if found else None


def _column(table: Table, name: str, said: str) -> Column:
    if name not in table.columns:
        raise DataError(
            f"{said} names the column {name}, which is not there.",
            where=table.origin,
            hint=did_you_mean(name, table.columns) or f"the columns are {', '.join(list(table.columns)[:20])}",
        )
    return table.columns[name]


def in_time(table: Table, time: str | None, series: str | None, gaps: Literal["end", "ignore"]) -> Table:
    """The table sorted by series and time, with `continues` telling where the next row is the next moment of the same series.

    A missing moment ends a run unless `gaps` is "ignore" (business days). Notices tell of gaps. Raises DataError naming rows for a time
    that is missing or stands twice, and for times without a step.
    """
    column = time_of(table, time)
    group = series_codes(table, series)
    if column is not None:
        lost = np.flatnonzero(column.is_missing())
        if len(lost):
            raise DataError(
                f"{len(lost):,} row(s) have no time.",
                where=f"{table.where(int(lost[0]))}, column {column.name}",
                hint="mend the rows or leave them out",
            )
        order = np.lexsort((column.values, group))
        table = _taken(table, order)
        group, column = group[order], table.columns[column.name]
    elif series is not None:
        order = np.argsort(group, kind="stable")
        table, group = _taken(table, order), group[order]
    same = np.append(group[1:] == group[:-1], False)
    if column is None:
        return replace(table, continues=same)
    _refuse_twice(table, column, same, series)
    step = step_of(column, same)
    if gaps == "ignore" or step is None:
        return replace(table, continues=same)
    regular = same & np.append(_distances(column.values, step) == 1, False)
    return _told(replace(table, continues=regular), column, same, regular, step)


def series_codes(table: Table, series: str | None) -> np.ndarray:
    """A number for each row that is equal where the series is, int64 (N,); zeros where there is one series."""
    if series is None:
        return np.zeros(len(table), dtype=np.int64)
    return np.unique(codes(_column(table, series, "task.series")), return_inverse=True)[1].astype(np.int64)


def _taken(table: Table, order: np.ndarray) -> Table:
    return table if (order == np.arange(len(order))).all() else table.take(order)


def _refuse_twice(table: Table, column: Column, same: np.ndarray, series: str | None) -> None:
    twice = np.flatnonzero(same[:-1] & (column.values[1:] == column.values[:-1]))
    if not len(twice):
        return
    first = int(twice[0])
    raise DataError(
        f"the time {column.answer(first)} stands in two rows{'' if series is None else ' of one series'} "
        f"({table.where(first)} and {table.where(first + 1)}); {len(twice):,} such pair(s) in all.",
        where=f"{table.origin}, column {column.name}",
        hint="leave one of each out"
        + ("; if the table holds several series, name in task.series the column that tells them apart" if series is None else ""),
    )


def step_of(column: Column | None, same: np.ndarray) -> Step | None:
    """The commonest distance from a time to the next (`same`: the next row is of the same series); None where no row has a next.

    Distances of a month and more are counted in calendar months where that makes them regular. Raises DataError where fewer than half
    of the distances are the commonest one.
    """
    if column is None:
        return Step()
    inside = np.flatnonzero(same[:-1])
    if not len(inside):
        return None
    apart = column.values[inside + 1] - column.values[inside]
    if column.kind == "number":
        apart = apart.round(9)
    distances, counts = np.unique(apart, return_counts=True)
    step = Step("number" if column.kind == "number" else "microseconds", distances[counts.argmax()].item(), column.name)
    share = counts.max() / len(apart)
    if column.kind == "datetime" and distances[0] >= 28 * _DAY and share < 1:
        months = _months(column.values)
        counted, often = np.unique(months[inside + 1] - months[inside], return_counts=True)
        if often.max() / len(apart) > share and counted[often.argmax()] > 0:
            step, share = Step("months", counted[often.argmax()].item(), column.name), often.max() / len(apart)
    if share < _REGULAR:
        raise DataError(
            f"the times have no step: the commonest distance ({step.describe()}) is that of only {100 * share:.0f} % of the rows.",
            where=f"column {column.name}",
            hint="bring the rows to regular times, or set task.gaps: ignore to count each row as one step",
        )
    return step


def _distances(times: np.ndarray, step: Step) -> np.ndarray:
    """From each time to the next in steps, float64 (N - 1,): 1 where the next moment follows."""
    if step.unit == "months":
        return np.diff(_months(times)) / step.count
    steps = np.diff(times) / step.count
    return np.where(np.abs(steps - 1) < 1e-6, 1.0, steps)  # times such as 0.1, 0.2, 0.3 are not exact


def _months(times: np.ndarray) -> np.ndarray:
    """Months since 1970; the last day of a month counts as the next month's first, so that both ways of dating agree."""
    return (times + _DAY).astype("M8[us]").astype("M8[M]").astype(np.int64)


def _month_times(times: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """`times` moved by months: the same day of the month, the last one where the month is shorter or the day was its last."""
    moments = times.astype("M8[us]")
    month = moments.astype("M8[M]")
    day = (moments.astype("M8[D]") - month.astype("M8[D]")).astype(np.int64)
    within = times - moments.astype("M8[D]").astype("M8[us]").astype(np.int64)
    was_last = (moments.astype("M8[D]") + 1).astype("M8[M]") != month
    goal = month + ahead
    last = ((goal + 1).astype("M8[D]") - goal.astype("M8[D]")).astype(np.int64) - 1
    return (goal.astype("M8[D]") + np.where(was_last, last, np.minimum(day, last))).astype("M8[us]").astype(np.int64) + within


def _told(table: Table, column: Column, same: np.ndarray, regular: np.ndarray, step: Step) -> Table:
    broken = np.flatnonzero(same & ~regular)
    if not len(broken):
        return table
    first = int(broken[0])
    said = (
        f"{len(broken):,} gap(s) in the times, which go by {step.describe()}: windows end there (the first from "
        f"{column.answer(first)} to {column.answer(first + 1)}, after {table.where(first)}). task.gaps: ignore would go on across them."
    )
    return replace(table, notices=(*table.notices, said))


def runs(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(first, last): for each row the first and the last row of its run, int64 (N,) each."""
    count = len(table)
    goes_on = (
        np.asarray(table.continues) if table.continues is not None else np.append(np.ones(max(count - 1, 0), dtype=bool), False)
    )
    goes_on = goes_on.copy()
    goes_on[-1:] = False
    starts = np.append(True, ~goes_on[:-1])[:count]
    first = np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    ends = np.flatnonzero(~goes_on)
    return first, ends[np.cumsum(starts) - 1] if count else first


def origins(runs: tuple[np.ndarray, np.ndarray], owned: np.ndarray, context: int, horizon: int, *, inside: bool) -> np.ndarray:
    """Rows p with `context` moments up to p and `horizon` moments after it in one run, those after it all `owned` (bool (N,)).

    With `inside` the moments up to p must be owned as well (training); else they may lie before the split's border. int64, ascending.
    """
    first, last = runs
    place = np.arange(len(first))
    fits = (place - first >= context - 1) & (last - place >= horizon)
    whole = np.concatenate([[0], np.cumsum(owned)])
    ahead = np.minimum(place + 1 + horizon, len(first))
    fits &= whole[ahead] - whole[np.minimum(place + 1, len(first))] == horizon
    if inside:
        fits &= whole[place + 1] - whole[np.maximum(place + 1 - context, 0)] == context
    return np.flatnonzero(fits)


def carried(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """`values` (N, V) with each gap (NaN) holding the last value before it in its run, 0 where there is none."""
    known = ~np.isnan(values)
    if known.all():
        return values
    place = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), axis=0)
    filled = np.take_along_axis(values, np.maximum(place, 0), axis=0)
    return np.where((place >= first[:, None]) & (place >= 0), filled, values.dtype.type(0))


def owners(splits: dict[str, np.ndarray], empty: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows belong to each split, bool (N,); a row of no split that is `empty` (holds no target) belongs to that before it."""
    owner = np.full(len(empty), -1, dtype=np.int64)
    for number, rows in enumerate(splits.values()):
        owner[rows] = number
    adrift = empty & (owner < 0)
    last = np.maximum.accumulate(np.where(adrift, -1, np.arange(len(owner)))) if len(owner) else owner
    owner = np.where(adrift & (last >= 0), owner[np.maximum(last, 0)], owner)
    return {name: owner == number for number, name in enumerate(splits)}
