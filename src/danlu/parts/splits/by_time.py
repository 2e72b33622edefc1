"""The latest rows for the test, those before them for validation, the oldest for training.

No model is thus trained on rows later than those it is scored on. Rows of the same moment stay
together (in the later split) wherever that leaves every split some rows.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from danlu.data.splitting import SplitSizes, rows_per_split, split_column
from danlu.errors import DataError
from danlu.terms import Column, Table


class Config(SplitSizes):
    """The column of time; shares of validation and test."""

    column: str = Field(description="A date-time or number column that gives the order of rows.")


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted. DataError where the column holds no times, or a row has none."""
    column = split_column(table, config.column, "by_time")
    if column.kind not in ("datetime", "number") or column.values.ndim > 1:
        raise DataError(
            f"column {column.name} holds {column.kind}, and a split by_time goes by date-times "
            "or numbers.",
            where=table.origin,
            hint=f"set data.columns.{column.name}.kind to datetime, or choose another column",
        )
    lost = np.flatnonzero(column.is_missing())
    if len(lost):
        raise DataError(
            f"{len(lost):,} row(s) have no time, and a split by_time needs one in every row.",
            where=f"{table.where(int(lost[0]))}, column {column.name}",
            hint="mend the rows or leave them out, or choose another split",
        )
    validation, test = rows_per_split(len(table), config, table.origin)
    order = np.argsort(column.values, kind="stable")
    times = column.values[order]
    to_test = _between_moments(times, len(times) - test, validation + 1) if test else len(times)
    to_validation = (
        _between_moments(times[:to_test], to_test - validation, 1) if validation else to_test
    )
    return {
        "train": np.sort(order[:to_validation]),
        "validation": np.sort(order[to_validation:to_test]),
        "test": np.sort(order[to_test:]),
    }


def _between_moments(times: np.ndarray, cut: int, least: int) -> int:
    """The last index at or before `cut` where the time changes, if at least `least` rows are before
    it; else `cut`."""
    earliest = int(np.searchsorted(times, times[cut], side="left"))
    return earliest if earliest >= least else cut
