"""Number columns seen as matrices: rows by features. What every transform of numbers is written with.

Statistics are taken in float64 over the values that are present (not NaN), a few features at a
time, so that a wide float32 column is never copied whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from danlu.terms import Column

_TOGETHER = 16  # features transposed at a time: one cache line of float32


def as_matrix(column: Column) -> np.ndarray:
    """The values of a number column as (N, D), a view; D is 1 for a plain column."""
    return column.values[:, None] if column.values.ndim == 1 else column.values


def feature_names(column: Column) -> tuple[str, ...]:
    """The name of each of the D features."""
    width = 1 if column.values.ndim == 1 else column.values.shape[1]
    if len(column.names) == width:
        return column.names
    return (
        (column.name,)
        if width == 1
        else tuple(f"{column.name}_{number}" for number in range(width))
    )


def number_column(column: Column, values: np.ndarray, names: Sequence[str]) -> Column:
    """A number column of the same name holding `values` (N, D), as (N,) where D is 1."""
    return replace(
        column,
        kind="number",
        values=values[:, 0] if values.shape[1] == 1 else values,
        categories=(),
        offsets=None,
        missing=None,
        names=tuple(names),
    )


def present_values(column: Column) -> Iterator[np.ndarray]:
    """For each feature its values that are not missing: float64, contiguous, in row order, of any
    length down to 0."""
    values = as_matrix(column)
    for start in range(0, values.shape[1], _TOGETHER):
        for feature in np.ascontiguousarray(
            values[:, start : start + _TOGETHER].T, dtype=np.float64
        ):
            lost = np.isnan(feature)
            yield feature[~lost] if lost.any() else feature


def row_range(column: Column, start: int, stop: int) -> Column:
    """Rows start to stop of a column, views of its arrays."""
    if column.offsets is None:
        return replace(column, values=column.values[start:stop])
    offsets = np.asarray(column.offsets[start : stop + 1])
    missing = None if column.missing is None else column.missing[start:stop]
    return replace(
        column,
        values=column.values[offsets[0] : offsets[-1]],
        offsets=offsets - offsets[0],
        missing=missing,
    )


def mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (divided by N) of float64 (N,); (0, 0) for none.

    The values are first divided by a power of two near the largest of them, which is exact: squares
    of 1e200 do not overflow."""
    if not len(values):
        return 0.0, 0.0
    if (
        values.min() == values.max()
    ):  # a sum would leave a rounding error, and 1e-17 is no spread to divide by
        return float(values[0]), 0.0
    exponent = int(np.frexp(np.abs(values).max())[1])
    small = np.ldexp(values, -exponent)
    mean = small.mean()
    deviation = np.sqrt(np.square(small - mean).mean())
    return float(np.ldexp(mean, exponent)), float(np.ldexp(deviation, exponent))
