"""What the splits share: sizes, a shuffle that is a function of the seed, the strata of a target.

The shuffle sorts PCG64's raw 64-bit stream, which numpy promises never to change (it may change its
`permutation`)."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from danlu.data.fingerprints import value_codes
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import Column, Table

_PURPOSE = 0x73_70_6C_69_74  # "split": separates this stream from others of the same seed
MOST_CLASSES = 20  # a number target with more distinct values is cut into quantile bins
BINS = 10


class SplitSizes(Options):
    """The options of every split whose recipe says how large validation and test are."""

    validation: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the rows for validation; 0: none."
    )
    test: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the rows for the test; 0: none."
    )

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> SplitSizes:
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test together must leave rows for training (their sum must be "
                "below 1)"
            )
        return self


def rows_per_split(total: int, shares: SplitSizes, where: str) -> tuple[int, int]:
    """(validation, test): how many of `total` rows go to each, rounded, at least 1 where the share
    is not 0. Messages call the data `where`.

    DataError where that leaves no row for training.

    >>> rows_per_split(25, SplitSizes(validation=0.1, test=0.2), "t.csv")
    (2, 5)
    """
    validation, test = (
        max(1, round(share * total)) if share else 0 for share in (shares.validation, shares.test)
    )
    if validation + test >= total:
        raise DataError(
            f"{total:,} rows are too few for a validation share of {shares.validation:g} and a "
            f"test share of {shares.test:g}.",
            where=where,
            hint="give more rows, or set data.split.validation or data.split.test to 0",
        )
    return validation, test


def shuffled_rows(total: int, seed: int) -> np.ndarray:
    """The numbers 0 to total - 1, int64, in an order that is a function of `total` and `seed`.

    >>> sorted(shuffled_rows(4, seed=1).tolist())
    [0, 1, 2, 3]
    """
    stream = np.random.PCG64(np.random.SeedSequence([_PURPOSE, seed]))
    return (
        np.argsort(stream.random_raw(total), kind="stable").astype(np.int64)
        if total
        else np.zeros(0, dtype=np.int64)
    )


def divide_rows(order: np.ndarray, validation: int, test: int) -> dict[str, np.ndarray]:
    """The splits of the rows `order`, each sorted: the first `test` of them, the next `validation`,
    and the rest as "train".

    >>> {name: rows.tolist() for name, rows in divide_rows(np.array([3, 1, 2, 0]), 1, 1).items()}
    {'train': [0, 2], 'validation': [1], 'test': [3]}
    """
    return {
        "train": np.sort(order[test + validation :]),
        "validation": np.sort(order[test : test + validation]),
        "test": np.sort(order[:test]),
    }


def strata(target: Column) -> np.ndarray:
    """The stratum of each row, int64 (N,): its class, or its quantile bin where a number has more
    than MOST_CLASSES distinct values; -1 where the value is missing.

    >>> strata(Column("y", "number", np.array([3.0, 1.0, np.nan, 3.0]))).tolist()
    [1, 0, -1, 1]
    """
    if target.kind in ("number", "datetime"):
        values = target.values if target.values.ndim == 1 else target.values[:, 0]
        present = ~target.is_missing()
        distinct = np.unique(values[present])
        if len(distinct) > MOST_CLASSES:
            edges = np.quantile(
                values[present].astype(np.float64), np.linspace(0, 1, BINS + 1)[1:-1]
            )
            return np.where(
                present, np.searchsorted(edges, values.astype(np.float64), side="right"), -1
            )
        return np.where(present, np.searchsorted(distinct, values), -1)
    if target.kind == "image":
        return np.zeros(len(target), dtype=np.int64)
    return value_codes(target)


def split_column(table: Table, name: str, part: str) -> Column:
    """The column `name`, by which the split `part` divides; DataError with the most similar name
    where there is none."""
    if name not in table.columns:
        from danlu.errors import did_you_mean

        raise DataError(
            f"data.split ({part}) names the column {name}, and there is no such column.",
            where=table.origin,
            hint=did_you_mean(name, table.columns)
            or f"the columns are {', '.join(list(table.columns)[:20])}",
        )
    return table.columns[name]
