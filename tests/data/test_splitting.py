"""What the splits share: sizes, the shuffle, strata."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from danlu.data.splitting import (
    BINS,
    SplitSizes,
    divide_rows,
    rows_per_split,
    shuffled_rows,
    split_column,
    strata,
)
from danlu.errors import DataError
from danlu.terms import Column, Table


def number(*values: float) -> Column:
    return Column("x", "number", np.array(values, dtype=np.float64))


def test_a_shuffle_is_fair_and_never_changes() -> None:
    assert shuffled_rows(8, 0).tolist() == [
        4,
        1,
        0,
        7,
        6,
        3,
        5,
        2,
    ]  # written down: a numpy that changes it changes every old run
    assert sorted(shuffled_rows(1001, 5)) == list(range(1001))
    first = np.array([shuffled_rows(7, seed)[0] for seed in range(3500)])
    assert (
        np.abs(np.bincount(first, minlength=7) - 500) < 5 * np.sqrt(500)
    ).all()  # 5 standard deviations of a count


@pytest.mark.parametrize(
    ("total", "validation", "test", "expected"),
    [(100, 0.1, 0.2, (10, 20)), (5, 0.01, 0.0, (1, 0)), (7, 0.25, 0.25, (2, 2)), (3, 0, 0, (0, 0))],
)
def test_sizes_are_rounded_and_at_least_one_row_where_wanted(
    total: int, validation: float, test: float, expected: tuple[int, int]
) -> None:
    sizes = SplitSizes(validation=validation, test=test)
    assert rows_per_split(total, sizes, "a.csv") == expected


def test_too_few_rows_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"a\.csv: 2 rows are too few.*\n.*data\.split"):
        rows_per_split(2, SplitSizes(), "a.csv")


def test_validation_and_test_must_leave_rows_for_training() -> None:
    with pytest.raises(ValidationError, match="below 1"):
        SplitSizes(validation=0.5, test=0.5)


def test_rows_are_divided_in_their_order_and_sorted() -> None:
    splits = divide_rows(np.array([5, 3, 1, 4, 2, 0]), validation=2, test=1)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [0, 2, 4],
        "validation": [1, 3],
        "test": [5],
    }


def test_strata_are_classes_or_quantile_bins() -> None:
    assert strata(number(2, 1, np.nan, 2)).tolist() == [1, 0, -1, 1]
    bins = strata(number(*range(1000)))
    assert np.bincount(bins).tolist() == [1000 // BINS] * BINS
    names = Column("x", "category", np.array([1, -1, 0], dtype=np.int32), ("a", "b"))
    assert strata(names).tolist() == [1, -1, 0]


def test_a_column_that_does_not_exist_is_named_with_the_most_similar_one() -> None:
    table = Table({"shop": number(1)}, "a.csv")
    assert split_column(table, "shop", "grouped").name == "x"
    with pytest.raises(DataError, match=r"grouped.*shpo.*\n.*shop"):
        split_column(table, "shpo", "grouped")
