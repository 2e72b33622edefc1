"""A date-time as numbers: year, month, day, weekday, hour, ...; what comes round again as sine and cosine.

On a circle December is next to January: a part with a period becomes sin and cos of 2 pi part / period. Parts that are the same in
all training rows (the hour of plain dates) are left out. UTC. A missing date-time is missing in all parts, so let impute follow.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from danlu.features import numbers
from danlu.recipe import Options
from danlu.terms import Column

TAKES = ("datetime",)
# name -> first value, period (0: does not come round)
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

    parts: list[Literal["year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second", "days"]] = Field(
        default=["year", "month", "day", "weekday", "hour", "minute"],
        min_length=1,
        description="The parts; weekday is 0 on Monday, days counts days (with fraction) since 1970.",
    )
    cyclic: bool = Field(default=True, description="Parts that come round again as sine and cosine; false: as plain numbers.")


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"parts": the parts that differ among the training rows; the first one where none does}."""
    moments = column.values[~column.is_missing()]
    differing = [part for part in dict.fromkeys(config.parts) if len(moments) and np.ptp(_part(part, moments)) > 0]
    return {"parts": differing or config.parts[:1]}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float64: one feature a plain part, two a cyclic one."""
    lost = column.is_missing()
    moments = np.where(lost, 0, column.values)
    features: list[np.ndarray] = []
    names: list[str] = []
    for part in state["parts"]:
        values = _part(part, moments)
        first, period = _PARTS[part]
        if config.cyclic and period:
            angle = 2 * np.pi * np.arange(period) / period  # a table, so that a value's sine never depends on its neighbours
            features += [np.sin(angle)[values - first], np.cos(angle)[values - first]]
            names += [f"{column.name} {part} sine", f"{column.name} {part} cosine"]
        else:
            features.append(values.astype(np.float64))
            names.append(f"{column.name} {part}")
    matrix = np.stack(features, axis=1)
    matrix[lost] = np.nan
    return numbers(column, matrix, names)


def _part(part: str, moments: np.ndarray) -> np.ndarray:
    """One part of each moment (int64 microseconds since 1970), int64; days as float64."""
    if part == "days":
        return moments / _DAY
    day, within = np.divmod(moments, _DAY)
    if part == "weekday":
        return (day + 3) % 7  # 1 January 1970 was a Thursday
    if part in ("hour", "minute", "second"):
        seconds = within // 1_000_000
        return seconds // 3600 if part == "hour" else seconds // 60 % 60 if part == "minute" else seconds % 60
    dates = day.astype("M8[D]")
    if part == "day":
        return (dates - dates.astype("M8[M]")).astype(np.int64) + 1
    if part == "day_of_year":
        return (dates - dates.astype("M8[Y]")).astype(np.int64) + 1
    if part == "month":
        return dates.astype("M8[M]").astype(np.int64) % 12 + 1
    return dates.astype("M8[Y]").astype(np.int64) + 1970
