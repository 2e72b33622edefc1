"""Splits in table order: the first rows for training, then validation, the last for the test.

Suits ordered rows: a series, a running text. Where every column is text, shares are shares of
bytes, so that long rows count more than short ones. With `train` set, the three splits follow each
other from the first row on, and the rows behind them are not used (ETTh1 by convention: train 8640,
validation 2880, test 2880 of 17,420 rows). With train.folds: k, the rows before the test are cut
into k + 1 pieces, and fold i trains on the first i pieces and is validated on the next (rolling
origin).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from danlu.data.fingerprints import value_codes
from danlu.data.splitting import split_column
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import Column, Table


class Config(Options):
    """The size of each split."""

    validation: float = Field(
        0.1,
        ge=0,
        description="Size of validation: a share of the rows (below 1) or a number of rows; 0: "
        "none.",
    )
    test: float = Field(
        0.1,
        ge=0,
        description="Size of the test: a share of the rows (below 1) or a number of rows; 0: none.",
    )
    train: float | None = Field(
        None,
        gt=0,
        description="Size of training: a share or a number of rows; null: all remaining rows.",
    )
    within: str | None = Field(
        None,
        description="A column that names several series in one table; each is split separately. "
        "null: one series.",
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Config:
        for name in ("validation", "test", "train"):
            size = getattr(self, name)
            if size is not None and size >= 1 and size != int(size):
                raise ValueError(
                    f"{name} is {size:g}: a number of rows must be whole, and a share must be "
                    "below 1"
                )
        shares = sum(size for size in (self.validation, self.test, self.train or 0) if size < 1)
        if shares > 1 + 1e-9 or (self.train is None and shares >= 1):
            raise ValueError(
                "the shares together must leave rows for training (their sum must be below 1)"
            )
        return self


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted. DataError where there are too few rows for the sizes."""
    sizes = _bytes_of_rows(table)
    if config.within is None:
        return _cut(config, np.arange(len(table)), sizes, table.origin)
    series = value_codes(split_column(table, config.within, "in_order"))
    order = np.argsort(series, kind="stable")
    first = np.flatnonzero(np.diff(series[order], prepend=series[order[:1]] - 1))
    pieces = [
        _cut(config, rows, sizes, table.where(int(rows[0]))) for rows in np.split(order, first[1:])
    ]
    return {name: np.sort(np.concatenate([piece[name] for piece in pieces])) for name in pieces[0]}


def _bytes_of_rows(table: Table) -> np.ndarray:
    """The size of each row, int64 (N,): its bytes where every column is text, else 1."""
    columns = list(table.columns.values())
    if not columns or any(column.kind not in ("text", "sequence") for column in columns):
        return np.ones(len(table), dtype=np.int64)
    offsets = np.sum([column.offsets for column in columns if column.offsets is not None], axis=0)
    return np.diff(offsets) if offsets[-1] > offsets[0] else np.ones(len(table), dtype=np.int64)


def _cut(config: Config, rows: np.ndarray, sizes: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """`rows` split in their order; DataError, which names `where`, if they are too few."""
    # total size before each possible cut
    ends = np.concatenate([[0], np.cumsum(sizes[rows])])
    stop = len(rows)
    if config.train is None:
        to_test = _before(stop, config.test, ends)
        start = to_validation = _before(to_test, config.validation, ends)
    else:
        start = to_validation = _after(0, config.train, ends)
        to_test = _after(to_validation, config.validation, ends)
        stop = _after(to_test, config.test, ends)
    if start <= 0 or stop > len(rows):
        train = "" if config.train is None else f", train: {config.train:g}"
        raise DataError(
            f"{len(rows):,} rows are too few for validation: {config.validation:g}, test: "
            f"{config.test:g}{train}.",
            where=where,
            hint="give more rows, or lower data.split.validation, data.split.test or "
            "data.split.train",
        )
    return {
        "train": rows[:to_validation],
        "validation": rows[to_validation:to_test],
        "test": rows[to_test:stop],
    }


def _after(start: int, size: float, ends: np.ndarray) -> int:
    """The index at which a split that begins at `start` ends; a share is at least one row."""
    if size == 0 or size >= 1 or start >= len(ends):
        return start + int(np.ceil(size))
    return max(start + 1, _nearest(ends, ends[start] + size * ends[-1]))


def _before(stop: int, size: float, ends: np.ndarray) -> int:
    """The index at which a split that ends before `stop` begins; a share is at least one row."""
    if size == 0 or size >= 1 or stop < 0:
        return stop - int(np.ceil(size))
    return min(stop - 1, _nearest(ends, ends[stop] - size * ends[-1]))


def _nearest(ends: np.ndarray, goal: float) -> int:
    """The index whose total size before it is closest to `goal`."""
    above = min(int(np.searchsorted(ends, goal)), len(ends) - 1)
    return above - 1 if above and goal - ends[above - 1] < ends[above] - goal else above
