"""Whole groups of rows (a patient, a customer) drawn at random: no group is in two splits.

A model that saw a patient in training may recognise the patient instead of the disease, and its
score on the same patient's other rows is too high. Rows without a group count as one group. The
shares are met as closely as whole groups allow. The column is not an input of the model.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from danlu.data.fingerprints import value_codes
from danlu.data.splitting import SplitSizes, rows_per_split, shuffled_rows, split_column
from danlu.errors import DataError
from danlu.terms import Column, Table


class Config(SplitSizes):
    """The column of groups; shares of validation and test, in rows."""

    column: str = Field(description="The column whose equal values make a group.")


def decided_by(config: Config) -> str:
    """The column that is no input of the model, since the split goes by it."""
    return config.column


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted. DataError where there are fewer groups than splits."""
    column = split_column(table, config.column, "grouped")
    if column.kind == "image" or column.values.ndim > 1:
        raise DataError(
            f"column {column.name} holds {column.kind} and cannot name groups.", where=table.origin
        )
    groups = np.unique(value_codes(column), return_inverse=True)[1]
    counts = np.bincount(groups)
    splits_wanted = 1 + (config.validation > 0) + (config.test > 0)
    if len(counts) < splits_wanted:
        raise DataError(
            f"column {column.name} holds {len(counts):,} group(s), and {splits_wanted} splits "
            "were asked for.",
            where=table.origin,
            hint="set data.split.validation or data.split.test to 0, or group by another column",
        )
    validation, test = rows_per_split(len(table), config, table.origin)
    split_of_group = _assign(counts, shuffled_rows(len(counts), seed), validation, test)
    splits = split_of_group[groups]
    return {
        name: np.flatnonzero(splits == number)
        for number, name in enumerate(("train", "validation", "test"))
    }


def _assign(counts: np.ndarray, order: np.ndarray, validation: int, test: int) -> np.ndarray:
    """The split of each group (0 train, 1 validation, 2 test), int64 (groups,).

    Groups are laid end to end in `order`; the middle row of a group decides its split.
    """
    rows = counts[order]
    middle = np.cumsum(rows) - rows / 2
    result = np.zeros(len(counts), dtype=np.int64)
    result[order[middle < test + validation]] = 1
    result[order[middle < test]] = 2
    wanted = [0] + [1] * (validation > 0) + [2] * (test > 0)
    if all((result == split).any() for split in wanted):
        return result
    result[:] = 0  # groups as large as a split: the smallest ones become validation and test
    smallest = iter(order[np.argsort(rows, kind="stable")])
    for split in wanted[1:]:
        result[next(smallest)] = split
    return result
