"""Checks that speak up where something is wrong, and are silent where nothing is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.data.checks import check_splits, check_table, repeated_rows
from danlu.recipe import ColumnOptions, Data, Options, Part
from danlu.terms import MISSING_DATETIME, Column, Table

ROWS = 1203
NAN = float("nan")


class Nowhere(Options):
    """A source that these tests do not read."""


def data_of(target: str | list[str] = "label", **options: Any) -> Data:
    return Data(source=Part("csv", Nowhere()), target=target, **options)


def category(name: str, codes: Any, categories: tuple[str, ...]) -> Column:
    return Column(name, "category", np.asarray(codes, dtype=np.int32), categories=categories)


def number(name: str, values: Any) -> Column:
    return Column(name, "number", np.asarray(values, dtype=np.float64))


def honest(rows: int = ROWS, seed: int = 0) -> dict[str, Column]:
    """Inputs that tell something of the label and the price, but not all."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 3, rows)
    shown = np.where(draw.random(rows) < 0.9, label, draw.integers(0, 3, rows))
    price = draw.lognormal(0, 1, rows)
    columns = [
        number("width", label + draw.normal(0, 0.5, rows)),
        number("cost", price * draw.normal(1, 0.05, rows)),
        category("shape", shown, ("round", "square", "long")),
        number("grade", draw.integers(1, 11, rows)),
        Column("fresh", "boolean", draw.integers(-1, 2, rows).astype(np.int8)),
        Column("when", "datetime", draw.integers(10**14, 10**15, rows)),
        number("price", price),
        category("label", label, ("a", "b", "c")),
    ]
    return {column.name: column for column in columns}


def table_of(*more: Column, drop: tuple[str, ...] = (), rows: int = ROWS) -> Table:
    columns = {name: column for name, column in honest(rows).items() if name not in drop}
    return Table({**columns, **{column.name: column for column in more}}, "made.csv")


def thirds(rows: int = ROWS) -> dict[str, np.ndarray]:
    every = np.random.default_rng(5).permutation(rows)
    third = rows // 3
    return {
        "train": np.sort(every[:third]),
        "validation": np.sort(every[third : 2 * third]),
        "test": np.sort(every[2 * third :]),
    }


def label() -> np.ndarray:
    return honest()["label"].values


def price() -> np.ndarray:
    return honest()["price"].values


@pytest.mark.parametrize("target", ["label", "price"])
def test_an_honest_table_is_met_with_silence(target: str) -> None:
    table = table_of()
    assert check_table(table, data_of(target)) == []
    assert check_splits(table, thirds(), data_of(target), [target]) == []


# --- leaks --------------------------------------------------------------------------------------------------------------

DRAW = np.random.default_rng(11)
LEAKS_OF_A_CLASS = {
    "a copy": category("x", label(), ("a", "b", "c")),
    "a copy in other words": category("x", 2 - label(), ("third", "second", "first")),
    "finer codes": number("x", label() * 7 + DRAW.integers(0, 7, ROWS)),
    "codes all over": number("x", np.array([3.0, 900.0, -5.0])[label()]),
    "a copy but for one row": category(
        "x", np.where(np.arange(ROWS) == 9, 0, label()), ("u", "v", "w")
    ),
    "a score that orders the classes": number("x", label() + 0.9 * DRAW.random(ROWS)),
    "whether it is missing": number(
        "x", np.where(label() == 0, NAN, np.where(label() == 1, NAN, 1.0))
    ),
}


@pytest.mark.parametrize("leak", LEAKS_OF_A_CLASS)
def test_an_input_that_tells_the_class_is_named(leak: str) -> None:
    column = LEAKS_OF_A_CLASS[leak]
    table = table_of(column)
    if leak == "whether it is missing":
        third = category("label", label() == 2, ("no", "yes"))
        table = table_of(column, third)
    found = check_table(table, data_of())
    assert len(found) == 1 and "olumn x" in found[0] and "label" in found[0]
    assert "set data.columns.x.use to false" in found[0]
    assert check_table(table, data_of(columns={"x": ColumnOptions(use=False)})) == []


LEAKS_OF_A_QUANTITY = {
    "a copy": price(),
    "another unit": 1.8 * price() + 32,
    "another scale": np.log(price()),
    "the other way round": -(price() ** 3),
    "a copy with gaps": np.where(np.arange(ROWS) % 3 == 0, NAN, price() * 2),
}


@pytest.mark.parametrize("leak", LEAKS_OF_A_QUANTITY)
def test_an_input_that_gives_the_quantity_is_named(leak: str) -> None:
    table = table_of(number("x", LEAKS_OF_A_QUANTITY[leak]))
    found = check_table(table, data_of("price"))
    assert len(found) == 1 and "olumn x" in found[0] and "price" in found[0]


def test_a_feature_of_a_wide_column_is_named() -> None:
    values = np.random.default_rng(0).normal(0, 1, (ROWS, 5))
    values[:, 3] = label()
    found = check_table(table_of(Column("x", "number", values, names=tuple("pqrst"))), data_of())
    assert len(found) == 1 and "x (s)" in found[0]


def test_a_leak_is_found_for_each_of_several_targets() -> None:
    table = table_of(number("x", price() * 2), category("y", label(), ("p", "q", "r")))
    found = check_table(table, data_of(["label", "price"]))
    assert ["Column y" in found[0], "Column x" in found[1], len(found)] == [True, True, 2]


def test_few_rows_a_rare_class_and_a_single_input_raise_no_alarm() -> None:
    few = Table(
        {
            "x": number("x", [1, 2, 3, 4] * 8),
            "label": category("label", [0, 0, 1, 1] * 8, ("a", "b")),
        },
        "made.csv",
    )
    assert check_table(few, data_of()) == []
    rare = np.zeros(ROWS, dtype=np.int32)
    rare[:5] = 1
    assert (
        check_table(
            table_of(category("x", rare, ("p", "q")), category("label", rare, ("no", "yes"))),
            data_of(),
        )
        == []
    )
    assert (
        check_table(
            table_of(category("x", rare, ("no", "yes")), category("label", rare, ("no", "yes"))),
            data_of(),
        )
        != []
    )  # a copy
    marks = np.where(rare == 1, 7.0, np.arange(ROWS) % 4)
    assert (
        check_table(table_of(number("x", marks), category("label", rare, ("no", "yes"))), data_of())
        == []
    )
    x = np.linspace(0, 1, 100)
    line = Table({"x": number("x", x), "y": number("y", 2 * x + 1)}, "made.csv")
    assert check_table(line, data_of("y")) == []


def test_a_column_that_counts_the_rows_is_named() -> None:
    found = check_table(table_of(number("x", np.arange(ROWS) + 1)), data_of())
    assert len(found) == 1 and "Column x counts the rows (1, 2, 3, ...)" in found[0]
    by_class = table_of(
        number("x", np.arange(ROWS)), category("label", np.sort(label()), ("a", "b", "c"))
    )
    assert "Column x alone tells the target label" in check_table(by_class, data_of())[0]


# --- the target ---------------------------------------------------------------------------------------------------------


def test_names_in_a_file_sorted_by_class_raise_no_alarm() -> None:
    every = category("x", np.arange(ROWS), tuple(f"name {row}" for row in range(ROWS)))
    assert (
        check_table(
            table_of(every, category("label", np.sort(label()), ("a", "b", "c"))), data_of()
        )
        == []
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (category("label", np.zeros(ROWS), ("a",)), "is 'a' in all 1,203 rows"),
        (number("label", np.full(ROWS, 2.5)), "is 2.5 in all 1,203 rows"),
        (number("label", np.full(ROWS, NAN)), "is missing in all 1,203 rows"),
        (
            category("label", np.where(np.arange(ROWS) == 40, 3, label()), ("a", "b", "c", "d")),
            r"'d' (made.csv row 41)",
        ),
    ],
)
def test_a_target_with_nothing_to_learn_and_a_class_of_one_row_are_named(
    target: Column, said: str
) -> None:
    found = check_table(table_of(target), data_of())
    assert len(found) == 1 and said in found[0]


# --- the splits ---------------------------------------------------------------------------------------------------------


def test_rows_that_stand_in_two_splits_are_counted_and_named() -> None:
    table, splits = table_of(), thirds()
    rows = np.arange(ROWS)
    rows[splits["test"][[3, 8]]] = splits["train"][[5, 6]]
    rows[splits["validation"][7]] = splits["train"][0]
    repeated = replace(
        table, columns={name: column.take(rows) for name, column in table.columns.items()}
    )
    found = check_splits(repeated, splits, data_of(), ["label"])
    test, train = splits["test"][3], splits["train"][5]
    assert len(found) == 2 and found[0].startswith("1 of 401 validation rows repeat")
    assert found[1].startswith(
        f"2 of 401 test rows repeat a training row exactly ({table.where(test)} = {table.where(train)}, "
    )
    numbered = replace(
        repeated,
        columns={
            **repeated.columns,
            "key": number("key", np.random.default_rng(0).permutation(ROWS)),
        },
    )
    assert (
        len(
            check_splits(
                numbered, splits, data_of(columns={"key": ColumnOptions(use=False)}), ["label"]
            )
        )
        == 2
    )


def test_repeated_images_are_found_among_sixty_thousand() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60_000, 28, 28, 1), dtype=np.uint8)
    images[59_000] = images[17]
    images[59_001] = images[18]
    images[59_001, 27, 27, 0] ^= 1  # one bit of one pixel: another image
    table = Table(
        {
            "photo": Column("photo", "image", images),
            "label": category("label", np.zeros(60_000), ("a",)),
        },
        "made",
    )
    splits = {
        "train": np.arange(50_000),
        "validation": np.arange(50_000, 55_000),
        "test": np.arange(55_000, 60_000),
    }
    found = check_splits(table, splits, data_of(), ["label"])
    assert (
        len(found) == 1
        and "1 of 5,000 test rows repeat a training row exactly (made row 59,001 = made row 18)"
        in found[0]
    )


def test_a_category_and_a_class_that_training_never_saw_are_named() -> None:
    splits = thirds()
    town = np.random.default_rng(0).integers(0, 3, ROWS)
    town[splits["test"][4]], town[splits["test"][9]], town[splits["test"][0]] = 3, 4, -1
    classes = label().copy()
    classes[splits["validation"][2]] = 3
    table = table_of(
        category("town", town, tuple("ABCDE")), category("label", classes, tuple("abcd"))
    )
    found = check_splits(table, splits, data_of(), ["label"])
    assert len(found) == 2
    assert "1 class(es) of the target label ('d') stand in validation only" in found[0]
    assert (
        f"2 categories of column town ('D', 'E') stand in test only: {table.where(splits['test'][4])}, "
        in found[1]
    )


def test_a_group_in_two_splits_is_named() -> None:
    splits = thirds()
    person = np.random.default_rng(0).integers(0, 200, ROWS)
    table = table_of(number("person_id", person))
    found = check_splits(table, splits, data_of(), ["label"])
    assert (
        len(found) == 2
        and "stand both in train and in test" in found[1]
        and "grouped, column: person_id" in found[1]
    )
    grouped = Part(
        "grouped", registry.config("splits", "grouped").model_validate({"column": "person_id"})
    )
    whole = registry.take("splits", "grouped").build(grouped.options, table, None, 0)
    assert check_splits(table, whole, data_of(split=grouped), ["label"]) == []
    assert len(check_splits(table, splits, data_of(split=grouped), ["label"])) == 2
    unnamed = table_of(number("person", person))
    assert check_splits(unnamed, splits, data_of(), ["label"]) == []
    assert (
        len(
            check_splits(
                unnamed, splits, data_of(columns={"person": ColumnOptions(use=False)}), ["label"]
            )
        )
        == 2
    )


def test_repeated_rows_are_those_after_the_first() -> None:
    def text(*values: str | None) -> Column:
        pieces = [(value or "").encode() for value in values]
        offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(
            np.int64
        )
        data = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        return Column(
            "t",
            "text",
            data,
            offsets=offsets,
            missing=np.array([value is None for value in values]),
        )

    columns = [
        number("n", [1.0, NAN, 1.0, NAN, -0.0, 0.0, 1.0]),
        text("a", "", "a", "", "b", "b", None),
        Column("d", "datetime", np.array([1, MISSING_DATETIME, 1, MISSING_DATETIME, 5, 5, 1])),
        Column(
            "w",
            "number",
            np.array(
                [[1, 2], [NAN, 1], [1, 2], [NAN, 1], [0, 0], [0, 0], [1, 2]], dtype=np.float32
            ),
        ),
    ]
    table = Table({column.name: column for column in columns}, "made.csv")
    assert repeated_rows(table).tolist() == [False, False, True, True, False, True, False]
    keyed = replace(
        table,
        columns={
            **table.columns,
            "key": number("key", range(7)),
            "label": number("label", [0] * 7),
        },
    )
    assert not repeated_rows(keyed).any()
    assert repeated_rows(keyed, data_of(columns={"key": ColumnOptions(use=False)})).sum() == 3


def test_unequal_rows_with_equal_fingerprints_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from danlu.data import fingerprints

    monkeypatch.setattr(
        fingerprints,
        "row_fingerprints",
        lambda table, names: np.zeros(len(table), dtype=np.uint64),
    )
    table = Table({"x": number("x", [1, 2, 3, 1]), "label": number("label", [0] * 4)}, "made.csv")
    assert repeated_rows(table).tolist() == [False, False, False, True]


# --- real tables --------------------------------------------------------------------------------------------------------


def bundled(name: str) -> Table:
    from sklearn import datasets

    found: Any = getattr(datasets, f"load_{name}")()
    columns = {
        str(each): number(str(each), values)
        for each, values in zip(found.feature_names, found.data.T)
    }
    if name == "diabetes":
        return Table({**columns, "label": number("label", found.target)}, name)
    classes = tuple(map(str, found.target_names))
    return Table({**columns, "label": category("label", found.target, classes)}, name)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
def test_no_leak_is_cried_in_the_tables_everyone_knows(name: str) -> None:
    assert check_table(bundled(name), data_of()) == []


SHARED = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = {
    "adult/adult.data": ("f14", " ?"),
    "california_housing/housing.csv": ("median_house_value", ""),
}


@pytest.mark.parametrize("file", FILES)
def test_no_leak_is_cried_in_the_real_files(file: str) -> None:
    import pyarrow as pa
    from pyarrow import csv

    if not (SHARED / file).is_file():
        pytest.skip(f"needs {SHARED / file} (set DANLU_DATA)")
    target, lost = FILES[file]
    read = csv.read_csv(
        SHARED / file,
        read_options=csv.ReadOptions(autogenerate_column_names=target == "f14"),
        convert_options=csv.ConvertOptions(null_values=[lost], strings_can_be_null=True),
    )
    columns = {}
    for name in read.column_names:
        cells = read[name].combine_chunks()
        if pa.types.is_string(cells.type):
            coded = cells.dictionary_encode()
            columns[name] = category(
                name,
                coded.indices.fill_null(-1).to_numpy(zero_copy_only=False),
                tuple(coded.dictionary.to_pylist()),
            )
        else:
            columns[name] = number(
                name, cells.cast("float64").fill_null(NAN).to_numpy(zero_copy_only=False)
            )
    assert check_table(Table(columns, file), data_of(target)) == []


def test_texts_that_are_to_be_written_are_no_classes() -> None:
    words = tuple(f"said {number}" for number in range(ROWS // 2))
    said = category("said", np.arange(ROWS) // 2, words)  # each by two speakers
    table = Table({"loud": number("loud", np.arange(ROWS) % 7), "said": said}, "made.csv")
    splits = {
        "train": np.arange(700),
        "validation": np.arange(700, 1000),
        "test": np.zeros(0, dtype=np.int64),
    }
    data = data_of("said")
    assert any("said" in each for each in check_splits(table, splits, data, ["said"]))
    assert check_splits(table, splits, data, ["said"], spelt=True) == []
    single = Table(
        {"said": category("said", np.arange(ROWS), tuple(map(str, range(ROWS))))}, "made.csv"
    )
    assert check_table(single, data) and check_table(single, data, spelt=True) == []
