"""A recipe's data, prepared: which rows take part, their splits, folds, targets and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import make
from danlu import registry
from danlu.data import dataset
from danlu.data.dataset import Dataset, keep_in_memory, prepare
from danlu.errors import DataError
from danlu.recipe import Recipe, read


def shop(folder: Path, rows: int = 40, **sections: Any) -> Recipe:
    """A recipe over `rows` rows: price is twice the size, and every tenth price is missing."""
    prices = [None if row % 10 == 9 else 2 * row for row in range(rows)]
    columns = {"size": range(rows), "town": ["Rome", "Oslo"] * (rows // 2), "price": prices}
    path = make.csv_file(folder / "shop.csv", columns)
    data = {"missing_target": "drop", "cache": False, **sections.pop("data", {})}
    tree = make.recipe(path, "price", task="regression", model="linear", data=data, **sections)
    return read(tree, registry)


def prepared(folder: Path, **sections: Any) -> Dataset:
    return prepare(shop(folder, **sections))


def numbers(data: Dataset) -> np.ndarray:
    array = data.arrays["numbers"]
    assert isinstance(array, np.ndarray)
    return array


def test_every_row_with_a_target_is_in_exactly_one_split(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    rows = np.concatenate(list(data.splits.values()))
    assert sorted(rows) == [row for row in range(40) if row % 10 != 9]
    assert "4 rows without a value of the target price are left out." in data.notices
    assert [len(data.splits[name]) for name in dataset.SPLITS] == [28, 4, 4]


def test_rows_without_a_target_are_an_error_where_the_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"price is missing in 4 of 40 rows.*\n.*missing_target"):
        prepared(tmp_path, data={"missing_target": "error"})


def test_the_same_recipe_gives_the_same_arrays_and_another_seed_another_split(
    tmp_path: Path,
) -> None:
    one, again = prepared(tmp_path), prepared(tmp_path)
    assert one.digest == again.digest
    assert numbers(one).tobytes() == numbers(again).tobytes()
    other = prepared(tmp_path, train={"seed": 5})
    assert one.splits["test"].tolist() != other.splits["test"].tolist()


def test_folds_share_no_validation_row_and_leave_the_test_rows_alone(tmp_path: Path) -> None:
    recipe = shop(tmp_path)
    test = prepare(recipe).splits["test"].tolist()
    parts = [prepare(recipe, fold=(index, 4)).splits for index in range(4)]
    assert all(splits["test"].tolist() == test for splits in parts)
    validated = np.concatenate([splits["validation"] for splits in parts])
    assert len(validated) == len(set(validated)) == 36 - len(test)


def test_statistics_are_those_of_the_training_rows_alone(tmp_path: Path) -> None:
    data = prepared(tmp_path, data={"columns": {"town": "drop"}})
    trained = numbers(data)[data.splits["train"]]
    assert trained.mean() == pytest.approx(0, abs=1e-6)
    assert trained.std() == pytest.approx(1, abs=1e-6)


def test_the_baseline_is_the_mean_of_the_training_rows(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    target = {name: data.table.columns["price"].values[rows] for name, rows in data.splits.items()}
    expected = np.mean(np.square(target["test"] - target["train"].mean()))
    assert data.baseline("test")["mse"] == pytest.approx(float(expected), rel=1e-4)


def test_an_example_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    assert prepared(tmp_path).where(3) == "shop.csv row 5"  # the header is row 1


def test_a_target_that_does_not_exist_is_named_with_the_most_similar_one(tmp_path: Path) -> None:
    path = make.csv_file(tmp_path / "shop.csv", {"size": range(9), "price": range(9)})
    tree = make.recipe(path, "prise", task="regression", model="linear")
    with pytest.raises(DataError, match=r"'prise'.*\n.*did you mean price\?"):
        prepare(read(tree, registry))


def test_where_no_input_is_left_the_error_says_why_for_each_column(tmp_path: Path) -> None:
    dropped = {"columns": {"size": "drop", "town": "drop"}}
    with pytest.raises(DataError, match=r"no column is left to learn from.*\n.*town is left out"):
        prepared(tmp_path, data=dropped)


def test_a_search_prepares_equal_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, calls = shop(tmp_path), []
    once = dataset._prepared
    monkeypatch.setattr(
        dataset, "_prepared", lambda recipe, fold: (calls.append(fold), once(recipe, fold))[1]
    )
    with keep_in_memory():
        first, second = prepare(recipe), prepare(recipe)
        prepare(recipe, fold=(0, 3))
    assert calls == [None, (0, 3)]
    assert first.arrays["numbers"] is second.arrays["numbers"]
    assert first.task is not second.task
    prepare(recipe)
    assert calls == [None, (0, 3), None]
