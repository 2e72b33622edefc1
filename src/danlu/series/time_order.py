"""Sorts the rows of a table by series and time, and finds where one moment follows another."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from danlu.data.fingerprints import value_codes
from danlu.errors import DataError, did_you_mean
from danlu.series.time_step import TimeStep, infer_step, steps_between
from danlu.terms import Column, Table


def time_column(table: Table, name: str | None) -> Column | None:
    """The column that holds the times: the one called `name`, else the only date-time column; None
    where there is none.

    Raises DataError where there is no column `name`, where it holds neither date-times nor numbers,
    and where `name` is None and there are several date-time columns.

    >>> column = Column("day", "datetime", np.zeros(2, dtype=np.int64))
    >>> time_column(Table({"day": column}, "t.csv"), None).name
    'day'
    """
    if name is not None:
        column = _column(table, name, "task.time")
        if column.kind not in ("datetime", "number") or column.values.ndim > 1:
            raise DataError(
                f"task.time names the column {name}, which holds {column.kind}; times are "
                "date-times or numbers.",
                where=table.origin,
                hint=f"set data.columns.{name}.kind: datetime",
            )
        return column
    candidates = [column for column in table.columns.values() if column.kind == "datetime"]
    if len(candidates) > 1:
        raise DataError(
            f"there are {len(candidates)} date-time columns "
            f"({', '.join(column.name for column in candidates[:5])}).",
            where=table.origin,
            hint="name in task.time the one that orders the rows",
        )
    return candidates[0] if candidates else None


def _column(table: Table, name: str, option: str) -> Column:
    if name not in table.columns:
        raise DataError(
            f"{option} names the column {name}, and there is no such column.",
            where=table.origin,
            hint=did_you_mean(name, table.columns)
            or f"the columns are {', '.join(list(table.columns)[:20])}",
        )
    return table.columns[name]


def sort_by_time(
    table: Table, time: str | None, series: str | None, gaps: Literal["end", "ignore"]
) -> Table:
    """The table sorted by series and time; its `continues` says where the next row is the next
    moment of the same series.

    time     the name of the column of times; None: the only date-time column, else rows are in
             order
    series   the name of the column that tells several series apart; None: one series
    gaps     "end": a missing moment ends a run; "ignore": each row is one step (business days)
    A notice names the gaps. Raises DataError naming rows where a time is missing or occurs twice in
    one series, and where the times have no regular step."""
    column = time_column(table, time)
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
    step = infer_step(column, same)
    if gaps == "ignore" or step is None:
        return replace(table, continues=same)
    regular = same & np.append(steps_between(column.values, step) == 1, False)
    return _with_gap_notice(replace(table, continues=regular), column, same, regular, step)


def series_codes(table: Table, series: str | None) -> np.ndarray:
    """The number of each row's series, int64 (N,); zeros where `series` is None.

    >>> names = Column("shop", "category", np.array([1, 0, 1], dtype=np.int32), ("a", "b"))
    >>> series_codes(Table({"shop": names}, "t.csv"), "shop").tolist()
    [1, 0, 1]
    """
    if series is None:
        return np.zeros(len(table), dtype=np.int64)
    return np.unique(value_codes(_column(table, series, "task.series")), return_inverse=True)[
        1
    ].astype(np.int64)


def _taken(table: Table, order: np.ndarray) -> Table:
    return table if (order == np.arange(len(order))).all() else table.take(order)


def _refuse_twice(table: Table, column: Column, same: np.ndarray, series: str | None) -> None:
    twice = np.flatnonzero(same[:-1] & (column.values[1:] == column.values[:-1]))
    if not len(twice):
        return
    first = int(twice[0])
    raise DataError(
        f"the time {column.python_value(first)} is in two "
        f"rows{'' if series is None else ' of one series'} "
        f"({table.where(first)} and {table.where(first + 1)}); {len(twice):,} such pair(s) in all.",
        where=f"{table.origin}, column {column.name}",
        hint="leave one of each out"
        + (
            (
                "; if the table holds several series, name in task.series the column that tells "
                "them "
                "apart"
            )
            if series is None
            else ""
        ),
    )


def _with_gap_notice(
    table: Table, column: Column, same: np.ndarray, regular: np.ndarray, step: TimeStep
) -> Table:
    broken = np.flatnonzero(same & ~regular)
    if not len(broken):
        return table
    first = int(broken[0])
    notice = (
        f"{len(broken):,} gap(s) in the times, which go by {step.describe()}: windows end there "
        "(the first from "
        f"{column.python_value(first)} to {column.python_value(first + 1)}, after "
        f"{table.where(first)}). task.gaps: ignore would go on across them."
    )
    return replace(table, notices=(*table.notices, notice))
