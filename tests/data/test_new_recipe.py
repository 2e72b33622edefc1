"""danlu new: a first recipe from a data file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu import registry
from danlu.data.dataset import prepare
from danlu.data.new_recipe import draft
from danlu.errors import DataError, RecipeError
from danlu.recipe import Recipe, check_recipe, read_yaml

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))


def recipe_of(text: str) -> Recipe:
    tree, where = read_yaml(text, "draft.yaml")
    return check_recipe(tree, where, registry, "draft.yaml")


def table(tmp_path: Path, columns: dict[str, list[object]], name: str = "rows.csv") -> str:
    rows = [list(columns), *zip(*columns.values())]
    text = "\n".join(
        ",".join(f'"{cell}"' if isinstance(cell, str) else str(cell) for cell in row)
        for row in rows
    )
    path = tmp_path / name
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def usual(rows: int = 60) -> dict[str, list[object]]:
    draw = np.random.default_rng(0)
    return {
        "age": [int(each) for each in draw.integers(18, 90, rows)],
        "city": [str(each) for each in draw.choice(["Ulm", "Bonn", "Kiel"], rows)],
        "sold": [f"2024-01-{1 + number // 3:02d}" for number in range(rows)],
        "rich": [str(bool(each)).lower() for each in draw.integers(0, 2, rows)],
        "tall": [str(bool(each)).lower() for each in draw.integers(0, 2, rows)],
        "stars": [int(each) for each in draw.integers(1, 6, rows)],
        "price": [round(float(each), 3) for each in draw.normal(100, 20, rows)],
    }


@pytest.mark.parametrize(
    ("target", "task", "why"),
    [
        ("city", "classification", "it holds 3 distinct words"),
        ("rich", "classification", "it holds true and false"),
        ("stars", "classification", "it holds 5 distinct whole numbers; where their size matters"),
        ("price", "regression", "it holds numbers"),
        ("age", "regression", "it holds numbers"),
        ("rich, tall", "multi_label", "2 columns of yes or no"),
        ("price,age", "regression", "2 columns of numbers"),
        ("price,city", "multi_task", "price: regression, it holds numbers; city: classification"),
    ],
)
def test_the_task_is_inferred_from_the_target_and_says_why(
    tmp_path: Path, target: str, task: str, why: str
) -> None:
    text = draft(table(tmp_path, usual()), target)
    recipe = recipe_of(text)
    assert recipe.task.name == task
    assert re.search(rf"^task: {task}  # {re.escape(why)}", text, re.MULTILINE)
    assert list(recipe.data.targets) == [name.strip() for name in target.split(",")]
    assert recipe.model.name == "realmlp"


@pytest.mark.parametrize("target", ["city", "price", "rich,tall", "price,city"])
def test_the_drafted_recipe_reads_its_data(tmp_path: Path, target: str) -> None:
    dataset = prepare(recipe_of(draft(table(tmp_path, usual()), target)))
    assert sum(len(rows) for rows in dataset.splits.values()) == 60


def test_every_column_is_listed_with_its_kind_and_the_reason(tmp_path: Path) -> None:
    text = draft(table(tmp_path, usual()), "city")
    kinds = {
        "age": "number",
        "city": "category",
        "sold": "datetime",
        "rich": "boolean",
        "stars": "number",
        "price": "number",
    }
    for name, kind in kinds.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"  #   {name}: ")]
        assert re.fullmatch(rf"  #   {name}: {kind}  # \S.+", line)
    assert "the target; " in next(
        line for line in text.splitlines() if line.startswith("  #   city")
    )
    assert "# split: {name: by_time, column: sold}  # rows stand in the order of time" in text


def proposals(text: str) -> list[int]:
    """The lines that are an option commented out."""
    return [
        number
        for number, line in enumerate(text.splitlines())
        if re.match(r"\s*# +[^\s:]+: \S", line)
        and not re.match(r"# (Note|[^:]+:? [\d,]+ rows)", line)
    ]


@pytest.mark.parametrize("target", ["city", "price", "rich,tall"])
def test_every_proposal_is_taken_when_its_mark_is_removed(tmp_path: Path, target: str) -> None:
    text = draft(table(tmp_path, usual()), target)
    lines = text.splitlines()
    heads = {
        "columns": "  # columns:",
        **{
            key: f"# {key}:" for key in ("loss", "optimizer", "schedule", "regularization", "train")
        },
    }
    found = proposals(text)
    assert len(found) > 40
    for number in found:
        changed = list(lines)
        above = [
            at for at in range(number) if any(lines[at].startswith(head) for head in heads.values())
        ]
        inside = above and all(
            re.match(r"\s*#   ", line) for line in lines[above[-1] + 1 : number + 1]
        )
        for at in [*([above[-1]] if inside else []), number]:
            changed[at] = re.sub(r"^(\s*)# ", r"\1", changed[at])
        if inside and "name" in lines[above[-1] + 1]:
            changed[above[-1] + 1] = re.sub(r"^(\s*)# ", r"\1", lines[above[-1] + 1])
        recipe_of("\n".join(changed) + "\n")


def test_the_whole_draft_uncommented_is_the_same_recipe(tmp_path: Path) -> None:
    text = draft(table(tmp_path, usual()), "city")
    kept = [
        line for line in text.splitlines() if "by_time" not in line and "transforms" not in line
    ]
    wanted = set(proposals("\n".join(kept))) | {
        number for number, line in enumerate(kept) if re.fullmatch(r"\s*# \w+:(  #.*)?", line)
    }
    uncommented = [
        re.sub(r"^(\s*)# ", r"\1", line) if number in wanted else line
        for number, line in enumerate(kept)
    ]
    full, drafted = recipe_of("\n".join(uncommented) + "\n"), recipe_of(text)
    assert {name: each.kind for name, each in full.data.columns.items()} == {
        "age": "number", "city": "category", "sold": "datetime", "rich": "boolean", "tall": "boolean", "stars": "number",
        "price": "number",
    }  # fmt: skip
    for key in (
        "task",
        "model",
        "loss",
        "metrics",
        "optimizer",
        "schedule",
        "regularization",
        "train",
    ):
        assert getattr(full, key) == getattr(drafted, key), key


def test_no_target_is_guessed_but_likely_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        draft(table(tmp_path, {**usual(), "Label": [1] * 60, "last": [2] * 60}))
    assert "'age', 'city', 'sold'" in caught.value.problem.message
    assert caught.value.problem.hint == "say --target COLUMN; likely: price, Label, last"


@pytest.mark.parametrize(
    ("target", "task", "said", "hint"),
    [
        ("pric", None, "there is no column 'pric'", "did you mean price?"),
        ("price, pric", None, "there is no column 'pric'", "did you mean price?"),
        ("sold", None, "holds datetime", "name another column"),
        ("price", "regresion", "there is no task 'regresion'", "did you mean regression?"),
        (",".join(usual()), None, "every column is a target", ""),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_the_remedy(
    tmp_path: Path, target: str, task: str, said: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        draft(table(tmp_path, usual()), target, task)
    assert said in caught.value.problem.message
    assert caught.value.problem.hint == hint


def test_a_task_that_is_said_is_taken_and_must_fit(tmp_path: Path) -> None:
    path = table(tmp_path, usual())
    assert recipe_of(draft(path, "stars", "regression")).task.name == "regression"
    with pytest.raises(RecipeError):
        draft(path, "stars,age", "classification")


def test_files_that_are_not_there_or_of_no_source_are_named(tmp_path: Path) -> None:
    path = table(tmp_path, usual())
    with pytest.raises(DataError) as caught:
        draft(path.replace("rows", "row"), "city")
    assert caught.value.problem.hint == f"did you mean {path}?"
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(DataError) as caught:
        draft(tmp_path / "a.docx", "city")
    assert ".csv" in caught.value.problem.hint


def test_rows_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    columns = usual()
    columns["city"] = [
        "" if number in (3, 7) else each for number, each in enumerate(columns["city"])
    ]
    text = draft(table(tmp_path, columns), "city")
    assert "\n  missing_target: drop  # 2 rows have no target\n" in text
    assert len(np.concatenate(list(prepare(recipe_of(text)).splits.values()))) == 58


def test_a_rare_class_is_pointed_out(tmp_path: Path) -> None:
    columns = usual(90)
    columns["city"] = ["Kiel" if number % 50 == 0 else "Ulm" for number in range(90)]
    text = draft(table(tmp_path, columns), "city")
    assert (
        "# loss:  # danlu list losses; the rarest class has 2.2% of the rows: class_weights: balanced"
        in text
    )


def test_a_column_that_tells_the_target_is_pointed_out(tmp_path: Path) -> None:
    columns = usual(90)
    columns["copy"] = [f"is {each}" for each in columns["city"]]
    text = draft(table(tmp_path, columns), "city")
    assert re.search(r"^# Note: Column copy alone tells the target city", text, re.MULTILINE)


def test_a_folder_of_images_needs_no_target(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(12):
        folder = tmp_path / "flowers" / ("rose" if number % 2 else "tulip")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 7, 3), 20 * number, dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    recipe = recipe_of(draft(tmp_path / "flowers"))
    assert (recipe.model.name, recipe.data.target, recipe.task.name) == (
        "cnn",
        "label",
        "classification",
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\r\n,;\t|'),
        min_size=1,
        max_size=60,
    )
    .map(str.strip)
    .filter(bool)
)
def test_any_column_name_makes_a_sound_recipe(tmp_path: Path, name: str) -> None:
    columns = usual(20)
    if name in columns:
        return
    path = table(tmp_path, {"kind": columns["city"], name: columns["price"]})
    try:
        text = draft(path, "kind")
    except DataError:  # the source's own matter, such as a header that looks like data
        return
    assert recipe_of(text).data.targets == ("kind",)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets (DANLU_DATA) are not here")
@pytest.mark.parametrize(
    ("path", "target", "task"),
    [
        ("california_housing/housing.csv", "median_house_value", "regression"),
        ("adult/adult.data", "column_15", "classification"),
        ("fashion_mnist", None, "classification"),
    ],
)
def test_real_files_are_drafted(path: str, target: str | None, task: str) -> None:
    assert recipe_of(draft(DATA / path, target)).task.name == task
