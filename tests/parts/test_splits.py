"""The promise of the shelf splits, over every part on it; then what each part adds; then folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry
from danlu.data import folds
from danlu.data.splitting import strata
from danlu.errors import DataError
from danlu.terms import MISSING_DATETIME, Column, Table

SPLITS = ("train", "validation", "test")
COLUMN = {
    "by_time": "day",
    "by_column": "part",
}  # what a part that goes by a column goes by here; others by person


def table_of(rows: int, seed: int = 0) -> Table:
    """Rows with a class, a quantity, a person (about 5 rows each), a day and the name of a
    split."""
    draw = np.random.default_rng(seed)
    kinds = np.minimum(draw.geometric(0.5, rows), 4) - 1
    part = draw.choice(3, rows, p=[0.7, 0.1, 0.2])
    part[:3] = [0, 1, 2]
    columns = [
        Column(
            "class",
            "category",
            kinds.astype(np.int32),
            categories=("common", "usual", "seldom", "rare"),
        ),
        Column("price", "number", draw.lognormal(0, 1, rows)),
        Column("person", "number", draw.integers(0, max(4, rows // 5), rows).astype(np.float64)),
        Column("day", "datetime", draw.integers(0, 10**9, rows) * 10**6),
        Column("part", "category", part.astype(np.int32), categories=("train", "dev", "Test")),
    ]
    return Table({column.name: column for column in columns}, "made.csv")


def options_of(name: str, **options: Any) -> Any:
    config = registry.config("splits", name)
    if "column" in config.model_fields:
        options.setdefault("column", COLUMN.get(name, "person"))
    return config(**options)


def build(
    name: str, table: Table, seed: int = 7, target: str | None = "class", **options: Any
) -> dict[str, np.ndarray]:
    column = None if target is None else table.columns[target]
    return registry.take("splits", name).build(options_of(name, **options), table, column, seed)


@pytest.mark.parametrize("rows", [31, 97, 1203])
@pytest.mark.parametrize("name", registry.names("splits"))
def test_splits_are_sorted_disjoint_and_whole(name: str, rows: int) -> None:
    splits = build(name, table_of(rows))
    assert list(splits) == list(SPLITS)
    for part in splits.values():
        assert part.dtype == np.int64 and len(part) and (np.diff(part) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(rows))


@pytest.mark.parametrize("name", registry.names("splits"))
def test_a_split_is_a_function_of_rows_and_seed(name: str) -> None:
    one, other = build(name, table_of(501)), build(name, table_of(501))
    assert all((one[split] == other[split]).all() for split in SPLITS)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in registry.names("splits")
        if "test" in registry.config("splits", name).model_fields
    ],
)
def test_shares_are_met_and_zero_means_none(name: str) -> None:
    table = table_of(2003)
    splits = build(name, table, validation=0.15, test=0.25)
    # 10 rows: whole groups, or rows of one moment, may be that much too large or small
    assert (
        abs(len(splits["validation"]) - 0.15 * 2003) < 10
        and abs(len(splits["test"]) - 0.25 * 2003) < 10
    )
    alone = build(name, table, validation=0.0, test=0.0)
    assert len(alone["train"]) == 2003 and not len(alone["test"]) and not len(alone["validation"])
    with pytest.raises(ValidationError, match=r"leave rows for training"):
        options_of(name, validation=0.5, test=0.5)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in registry.names("splits")
        if "test" in registry.config("splits", name).model_fields
    ],
)
def test_a_share_asked_for_is_never_silently_empty(name: str) -> None:
    for rows in range(1, 12):
        try:
            splits = build(
                name, table_of(max(rows, 3)).take(np.arange(rows)), validation=0.01, test=0.01
            )
        except DataError as error:
            assert error.problem.hint
            continue
        assert all(len(splits[split]) for split in SPLITS), rows


@pytest.mark.parametrize("name", registry.names("splits"))
def test_a_column_that_is_not_there_is_named_with_its_nearest(name: str) -> None:
    if "column" not in registry.config("splits", name).model_fields:
        pytest.skip("goes by no column")
    with pytest.raises(DataError, match=r"persn.*\n.*did you mean person"):
        build(name, table_of(50), column="persn")


@pytest.mark.parametrize("name", ["random", "stratified", "grouped"])
def test_another_seed_draws_other_rows(name: str) -> None:
    table = table_of(501)
    assert not np.array_equal(
        build(name, table, seed=1)["test"], build(name, table, seed=2)["test"]
    )


def test_stratified_keeps_the_share_of_each_class() -> None:
    table = table_of(1203)
    splits = build("stratified", table, validation=0.1, test=0.2)
    classes = table.columns["class"].values
    for code, count in enumerate(np.bincount(classes)):
        for split, share in (("validation", 0.1), ("test", 0.2)):
            # 2 rows: one stays in train, and the places of the draw may fall one short
            assert abs((classes[splits[split]] == code).sum() - share * count) <= 2


def test_stratified_leaves_one_row_of_each_class_in_train() -> None:
    codes = np.concatenate([np.zeros(60), np.ones(1), np.full(2, 2), np.arange(3, 9)]).astype(
        np.int32
    )
    target = Column("class", "category", codes, categories=tuple("abcdefghi"))
    table = Table({"class": target}, "made.csv")
    for seed in range(30):
        splits = build("stratified", table, seed=seed, validation=0.3, test=0.3)
        assert set(codes[splits["train"]]) == set(range(9))
    with pytest.raises(DataError, match=r"stays in train"):
        build("stratified", table.take(np.array([0, 60, 61, 63, 64])), validation=0.2, test=0.2)


def test_stratified_goes_by_tenths_of_a_quantity() -> None:
    table = table_of(1000)
    prices = table.columns["price"].values
    splits = build("stratified", table, target="price", test=0.2)
    tenth = strata(table.columns["price"])
    assert np.bincount(tenth).tolist() == [100] * 10
    assert (np.abs(np.bincount(tenth[splits["test"]]) - 20) <= 1).all()
    assert abs(np.median(prices[splits["test"]]) / np.median(prices) - 1) < 0.1


def test_stratified_without_a_target_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"choose the split random"):
        build("stratified", table_of(30), target=None)


@pytest.mark.parametrize("kind", ["number", "category", "text"])
def test_grouped_never_tears_a_group(kind: str) -> None:
    table = table_of(900)
    person = table.columns["person"].values.astype(np.int64)
    if kind == "category":
        column = Column(
            "person",
            "category",
            person.astype(np.int32),
            categories=tuple(f"p{number}" for number in range(180)),
        )
        table = Table({**table.columns, "person": column}, "made.csv")
    if kind == "text":
        data = [str(number).encode() for number in person]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in data])])
        column = Column(
            "person", "text", np.frombuffer(b"".join(data), dtype=np.uint8), offsets=offsets
        )
        table = Table({**table.columns, "person": column}, "made.csv")
    splits = build("grouped", table)
    groups = [set(person[splits[split]]) for split in SPLITS]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_grouped_holds_out_small_groups_where_one_is_most_of_the_rows() -> None:
    person = np.array([0.0] * 90 + [1.0] * 3 + [2.0] * 4 + [np.nan] * 5)
    table = Table({"person": Column("person", "number", person)}, "made.csv")
    for seed in range(20):
        splits = build("grouped", table, seed=seed, target=None)
        assert 0 in splits["train"] and all(len(splits[split]) for split in SPLITS)
        assert (
            len({split for split in SPLITS for row in range(97, 102) if row in splits[split]}) == 1
        )  # no group: one group
    with pytest.raises(DataError, match=r"2 group"):
        build("grouped", table.take(np.arange(93)), target=None)


def test_by_time_tests_on_the_latest_rows() -> None:
    table = table_of(400)
    day = table.columns["day"].values
    splits = build("by_time", table)
    assert (
        day[splits["train"]].max()
        < day[splits["validation"]].min()
        <= day[splits["validation"]].max()
        < day[splits["test"]].min()
    )


def test_by_time_keeps_a_moment_together() -> None:
    hours = np.repeat(np.arange(20), 5).astype(np.float64)
    table = Table({"day": Column("day", "number", hours)}, "made.csv")
    splits = build("by_time", table, target=None, validation=0.13, test=0.13)
    assert [(hours[splits[split]].min(), hours[splits[split]].max()) for split in SPLITS] == [
        (0, 13),
        (14, 16),
        (17, 19),
    ]
    same = Table({"day": Column("day", "number", np.zeros(10))}, "made.csv")
    assert [len(rows) for rows in build("by_time", same, target=None).values()] == [8, 1, 1]


def test_by_time_refuses_a_row_without_time_and_a_column_that_is_none() -> None:
    table = table_of(30)
    table.columns["day"].values[4] = MISSING_DATETIME
    with pytest.raises(DataError, match=r"made.csv row 5, column day: 1 row\(s\) have no time"):
        build("by_time", table)
    with pytest.raises(DataError, match=r"holds category"):
        build("by_time", table, column="class")


def test_by_column_does_as_it_is_told() -> None:
    table = table_of(200)
    splits = build("by_column", table)
    for code, split in enumerate(SPLITS):
        np.testing.assert_array_equal(
            splits[split], np.flatnonzero(table.columns["part"].values == code)
        )
    person = build("by_column", table, column="person", train_values=[str(n) for n in range(30)], validation_values=["30"],
                   test_values=[str(n) for n in range(31, 40)])  # fmt: skip
    assert set(table.columns["person"].values[person["validation"]]) == {30}
    with pytest.raises(DataError, match=r"made.csv row \d+, column person: '\d+' means no split"):
        build("by_column", table, column="person")


def test_by_column_draws_validation_from_train_where_the_column_names_none() -> None:
    flag = Column("part", "boolean", np.array([1] * 40 + [0] * 10, dtype=np.int8))
    table = Table({"part": flag}, "made.csv")
    splits = build("by_column", table, target=None, train_values=["true"], test_values=["false"])
    assert [len(splits[split]) for split in SPLITS] == [36, 4, 10] and splits[
        "test"
    ].tolist() == list(range(40, 50))
    without = build(
        "by_column",
        table,
        target=None,
        train_values=["true"],
        test_values=["false"],
        validation_share=0.0,
    )
    assert [len(without[split]) for split in SPLITS] == [40, 0, 10]
    with pytest.raises(ValidationError, match=r"must mean one split"):
        options_of("by_column", test_values=["train"])


# --- folds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("target", [None, "class", "price"])
def test_each_row_is_validated_in_exactly_one_fold(k: int, target: str | None) -> None:
    rows = np.arange(5, 208, dtype=np.int64)
    table = table_of(300).take(rows)
    column = None if target is None else table.columns[target]
    found = folds.k_fold(rows, column, k, seed=3)
    assert len(found) == k
    np.testing.assert_array_equal(
        np.sort(np.concatenate([validation for _, validation in found])), rows
    )
    for train, validation in found:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), rows)
        assert (
            abs(len(validation) - len(rows) / k) < 1
            and (np.diff(train) > 0).all()
            and (np.diff(validation) > 0).all()
        )
        if column is not None:
            here, all_rows = (
                np.bincount(strata(column)[each], minlength=10)
                for each in (validation - 5, rows - 5)
            )
            assert (np.abs(here - all_rows / k) < 1).all()
    again = folds.k_fold(rows, column, k, seed=3)
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(found, again))
    assert not np.array_equal(found[0][1], folds.k_fold(rows, column, k, seed=4)[0][1])


def test_folds_of_groups_tear_no_group_and_are_even() -> None:
    rows = np.arange(500, dtype=np.int64)
    person = table_of(500).columns["person"]
    found = folds.k_fold(rows, None, 5, seed=0, groups=person)
    for train, validation in found:
        assert not set(person.values[train]) & set(person.values[validation])
        assert (
            abs(len(validation) - 100) <= 3
        )  # the smallest groups, placed last, even the folds out


def test_more_folds_than_rows_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 rows cannot be cut into 4 folds"):
        folds.k_fold(np.arange(3), None, 4, 0)
    with pytest.raises(DataError, match=r"2 groups, too few for 3 folds"):
        folds.k_fold(
            np.arange(6), None, 3, 0, groups=Column("g", "number", np.array([1.0, 1, 1, 2, 2, 2]))
        )
