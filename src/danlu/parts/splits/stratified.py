"""Rows drawn at random so that every split holds the classes of the target in equal proportion.

Rows are ordered by class, randomly within a class, and every k-th is drawn (systematic sampling),
so that the share of a class in each split is exact to about one row. One row of each class always
stays in training, so no class is scored that was never trained on. A numeric target with many
values is stratified by ten quantile bins.
Source: Madow and Madow, 1944, doi:10.1214/aoms/1177731312.
"""

from __future__ import annotations

import numpy as np

from danlu.data.splitting import SplitSizes, rows_per_split, shuffled_rows, strata
from danlu.errors import DataError
from danlu.terms import Column, Table


class Config(SplitSizes):
    """Shares of validation and test."""


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted. DataError without a target, or with too many classes for the
    number of rows."""
    if target is None:
        raise DataError(
            "a stratified split needs a target, and there is none.",
            hint="name data.target, or choose the split random",
        )
    validation, test = rows_per_split(len(table), config, table.origin)
    order = shuffled_rows(len(table), seed)
    classes = strata(target)[order]
    by_class = np.argsort(classes, kind="stable")
    classes, order = classes[by_class], order[by_class]
    first = np.ones(len(order), dtype=bool)
    first[1:] = classes[1:] != classes[:-1]
    kept, pool = order[first], order[~first]
    if len(pool) < validation + test:
        raise DataError(
            f"{len(kept):,} classes of {target.name} in {len(table):,} rows leave {len(pool):,} "
            "rows for validation and test, "
            f"and {validation + test:,} were asked for (one row of each class stays in train).",
            where=table.origin,
            hint="choose the split random, or smaller shares",
        )
    tested, pool = _every(pool, test)
    validated, pool = _every(pool, validation)
    return {
        "train": np.sort(np.concatenate([kept, pool])),
        "validation": np.sort(validated),
        "test": np.sort(tested),
    }


def _every(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(`count` rows at equal distances, the remaining rows)."""
    drawn = np.zeros(len(rows), dtype=bool)
    if count:
        drawn[((np.arange(count) + 0.5) * (len(rows) / count)).astype(np.int64)] = True
    return rows[drawn], rows[~drawn]
