"""Number columns as matrices (rows, features), the form in which transforms of numbers work.

Statistics are computed in float64 over the values that are not NaN, a few features at a time, so
that a wide float32 column is never copied as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from danlu.terms import Column

_TOGETHER = 16  # features that are transposed at a time: one cache line of float32


def as_matrix(column: Column) -> np.ndarray:
    """The values of a number column as (N, D), a view; D is 1 for a column of single numbers.

    >>> as_matrix(Column("x", "number", np.array([1.0, 2.0]))).shape
    (2, 1)
    """
    return column.values[:, None] if column.values.ndim == 1 else column.values


def feature_names(column: Column) -> tuple[str, ...]:
    """The name of each of the D features.

    >>> feature_names(Column("x", "number", np.zeros((4, 2))))
    ('x_0', 'x_1')
    """
    width = 1 if column.values.ndim == 1 else column.values.shape[1]
    if len(column.names) == width:
        return column.names
    return (
        (column.name,)
        if width == 1
        else tuple(f"{column.name}_{number}" for number in range(width))
    )


def number_column(column: Column, values: np.ndarray, names: Sequence[str]) -> Column:
    """A number column with the name of `column` and `values` (N, D), stored as (N,) where D is 1.

    >>> column = Column("x", "boolean", np.array([0, 1], dtype=np.int8))
    >>> number_column(column, np.array([[0.0], [1.0]]), ["x"]).values.tolist()
    [0.0, 1.0]
    """
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
    """For each feature its values that are not NaN: float64, contiguous, in row order; possibly
    none.

    >>> [values.tolist() for values in present_values(Column("x", "number", np.array([1, np.nan])))]
    [[1.0]]
    """
    values = as_matrix(column)
    for start in range(0, values.shape[1], _TOGETHER):
        for feature in np.ascontiguousarray(
            values[:, start : start + _TOGETHER].T, dtype=np.float64
        ):
            lost = np.isnan(feature)
            yield feature[~lost] if lost.any() else feature


def row_range(column: Column, start: int, stop: int) -> Column:
    """The rows start to stop - 1 of a column, as views of its arrays.

    >>> row_range(Column("x", "number", np.arange(4.0)), 1, 3).values.tolist()
    [1.0, 2.0]
    """
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
    """Mean and standard deviation (divided by N) of float64 (N,); (0, 0) where N is 0.

    The values are first divided by a power of two near the largest of them, which is exact, so that
    the squares of 1e200 do not overflow.

    >>> mean_and_deviation(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
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
