"""The split in_order: by place alone, in rows or shares, by bytes for text, each series by itself."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.errors import DataError
from danlu.parts.splits import in_order
from danlu.terms import Column, Table


def rows(count: int) -> Table:
    return Table({"x": Column("x", "number", np.arange(float(count)))}, "x.csv")


def texts(*lengths: int) -> Table:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Table(
        {"text": Column("text", "text", np.zeros(offsets[-1], dtype=np.uint8), offsets=offsets)},
        "corpus",
    )


def ends(table: Table, **options: float | str | None) -> tuple[tuple[int, int], ...]:
    """(first row, row after the last) of the three splits, which must be whole pieces of the
    table."""
    splits = in_order.build(in_order.Config.model_validate(options), table, None, seed=0)
    for each in splits.values():
        assert not len(each) or (each == np.arange(each[0], each[-1] + 1)).all()
    return tuple(
        (int(each[0]), int(each[-1]) + 1) if len(each) else (0, 0) for each in splits.values()
    )


def test_the_rest_is_for_training_where_only_the_others_are_given() -> None:
    assert ends(rows(20)) == ((0, 16), (16, 18), (18, 20))
    assert ends(rows(20), validation=3, test=0.25) == ((0, 12), (12, 15), (15, 20))
    assert ends(rows(20), validation=0, test=0.1) == ((0, 18), (0, 0), (18, 20))
    assert ends(rows(3), validation=0.01, test=0.01) == ((0, 1), (1, 2), (2, 3)), (
        "a share that was asked for holds a row"
    )


def test_with_train_given_the_three_stand_one_after_the_other_and_the_end_is_not_used() -> None:
    assert ends(rows(17_420), train=8640, validation=2880, test=2880) == (
        (0, 8640),
        (8640, 11_520),
        (11_520, 14_400),
    )
    assert ends(rows(10), train=0.5, validation=2, test=0.1) == ((0, 5), (5, 7), (7, 8))
    assert ends(rows(7), train=0.7, validation=0.1, test=0.2)[-1][1] == 7, (
        "rounded shares of 1 in all use every row"
    )


def test_a_share_of_text_is_one_of_its_bytes() -> None:
    assert ends(texts(10, 10, 10, 50, 10, 10), validation=0.1, test=0.1) == ((0, 4), (4, 5), (5, 6))
    assert ends(texts(80, 5, 5, 5, 5), validation=0.1, test=0.1) == ((0, 1), (1, 3), (3, 5))
    assert ends(texts(80, 5, 5, 5, 5), validation=1, test=1) == ((0, 3), (3, 4), (4, 5)), (
        "numbers of rows stay what they are"
    )


def test_each_series_is_cut_by_itself() -> None:
    shop = np.repeat(np.array([1, 0], dtype=np.int32), [10, 20])
    table = Table(
        {
            "shop": Column("shop", "category", shop, categories=("a", "b")),
            "x": Column("x", "number", np.arange(30.0)),
        },
        "x.csv",
    )
    splits = in_order.build(
        in_order.Config(validation=0.1, test=0.2, within="shop"), table, None, seed=0
    )
    assert splits["train"].tolist() == [*range(7), *range(10, 24)]
    assert splits["validation"].tolist() == [7, 24, 25]
    assert splits["test"].tolist() == [8, 9, 26, 27, 28, 29]


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 5, "test": 5},
        {"train": 11},
        {"train": 6, "validation": 4, "test": 1},
        {"validation": 0.5, "test": 8},
    ],
)
def test_more_than_there_is_is_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"10 rows are too few .*\n.*lower data\.split\.validation"):
        in_order.build(in_order.Config.model_validate(options), rows(10), None, seed=0)


@pytest.mark.parametrize(
    "options",
    [{"validation": 2.5}, {"validation": 0.6, "test": 0.4}, {"train": 0.9, "validation": 0.2}],
)
def test_sizes_that_have_no_meaning_are_refused_before_any_data_is_read(
    options: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match=r"must be whole|must leave rows"):
        in_order.Config.model_validate(options)
