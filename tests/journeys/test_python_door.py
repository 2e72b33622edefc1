"""danlu from Python: a dict in, answers out."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
import make

IRIS: dict[str, Any] = make.iris(
    model={"name": "mlp", "hidden": [16]}, train={"epochs": 40, "threads": 1}
)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> danlu.Artifact:
    return danlu.train(IRIS, tmp_path_factory.mktemp("iris") / "run")


def test_rows_may_come_in_any_form_and_get_the_same_answers(iris: danlu.Artifact) -> None:
    names = list(iris.inputs)
    values = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
    dicts = [dict(zip(names, row)) for row in values.tolist()]
    wanted = iris.predict(dicts)
    assert [answer["prediction"] for answer in wanted] == ["setosa", "virginica"]
    assert sum(wanted[0]["probabilities"].values()) == pytest.approx(1)
    assert iris.predict({name: values[:, place] for place, name in enumerate(names)}) == wanted
    assert iris.predict(values) == wanted
    (alone,) = iris.predict(
        [dicts[1]]
    )  # matrix products of other heights round in another order: float32, 24 bits
    assert alone["prediction"] == wanted[1]["prediction"]
    assert alone["probabilities"] == pytest.approx(wanted[1]["probabilities"], abs=1e-6)


def test_a_column_that_is_missing_is_named(iris: danlu.Artifact) -> None:
    name = next(iter(iris.inputs))
    row = dict.fromkeys(iris.inputs, 1.0)
    del row[name]
    with pytest.raises(danlu.DanluError, match=re.escape(name)):
        iris.predict([row])


def test_no_rows_get_no_answers(iris: danlu.Artifact) -> None:
    assert iris.predict([]) == []


def test_an_artifact_on_disk_answers_like_the_one_in_memory(iris: danlu.Artifact) -> None:
    assert iris.path is not None
    again = danlu.load(iris.path.parent)
    rows = [dict.fromkeys(iris.inputs, 2.0), dict.fromkeys(iris.inputs, 5.5)]
    assert again.predict(rows) == iris.predict(rows)
    assert danlu.evaluate(again).values == {
        name: value
        for name, value in iris.scores["test"].items()
        if name not in ("rows", "confusion_matrix")
    }


def test_a_recipe_wrong_in_five_ways_gets_five_messages_before_any_data_is_read() -> None:
    wrong = {
        "tsk": "classification",
        "data": {"source": "/nowhere/absent.csv", "target": "y", "splt": "random"},
        "model": {"name": "mlp", "hidden": "wide"},
        "optimizer": {"name": "adamw", "learning_rate": -1},
        "train": {"epochs": 3, "steps": 5},
    }
    with pytest.raises(danlu.DanluError) as caught:
        danlu.train(wrong)
    text = str(caught.value)
    assert all(
        word in text
        for word in ("tsk", "data.splt", "model.hidden", "optimizer.learning_rate", "train.steps")
    ), text


def test_cross_validation_uses_every_row_once_and_gives_mean_and_spread(tmp_path: Path) -> None:
    recipe = danlu.read_recipe(
        IRIS, {"train.epochs": 5, "data.split.name": "random", "data.split.test": 0.0}
    )
    found = danlu.cross_validate(recipe, 3, tmp_path)
    assert sum(fold["rows"] for fold in found["folds"]) == 150
    losses = [fold["loss"] for fold in found["folds"]]
    assert found["mean"]["loss"] == pytest.approx(np.mean(losses)) and found["std"][
        "loss"
    ] == pytest.approx(np.std(losses, ddof=1))


def test_the_learning_rate_range_test_suggests_a_rate_that_trains() -> None:
    found = danlu.find_learning_rate(danlu.read_recipe(IRIS, {"optimizer": "sgd"}), steps=80)
    assert found.rates == sorted(found.rates)
    assert 1e-4 < found.suggestion < 5


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)
"""


def test_a_module_of_ones_own_trains_only_where_code_is_allowed(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "my_net.py").write_text(NET)
    recipe = {
        **IRIS,
        "model": {"name": "python", "object": "my_net:Net", "options": {"width": 8}},
        "optimizer": {"learning_rate": 0.03},
    }
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "danlu", "train", "own.yaml", "--json"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (
        refused.returncode == 2
        and "--allow-code" in refused.stderr
        and "Traceback" not in refused.stderr
    )
    allowed = subprocess.run(
        [*command, "--allow-code"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert allowed.returncode == 0, allowed.stderr
    assert json.loads(allowed.stdout)["scores"]["test"]["accuracy"] > 0.7
    asked = subprocess.run(
        [sys.executable, "-m", "danlu", "evaluate", "runs/own"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode != 0 and "--allow-code" in asked.stderr, (
        "an artifact never brings its own permission"
    )


def test_a_number_means_at_prediction_what_its_decimal_mark_meant_in_training(
    tmp_path: Path,
) -> None:
    def lines(rows: list[float], head: str) -> str:
        return (
            "\n".join([head, *(f"{value:.3f};{2 * value:.2f}".replace(".", ",") for value in rows)])
            + "\n"
        )

    draw = np.random.default_rng(0)
    (tmp_path / "train.csv").write_text(lines(draw.uniform(1, 9, 200).tolist(), "v;y"))
    recipe = {
        "task": "regression",
        "data": {"source": str(tmp_path / "train.csv"), "target": "y"},
        "model": "linear",
    }
    artifact = danlu.train(
        recipe,
        tmp_path / "run",
        {"train.steps": 300, "train.threads": 1, "optimizer.learning_rate": 0.05},
    )
    (tmp_path / "ask.csv").write_text("v;note\n5,250;a\n")  # alone it could be five thousand
    (answer,) = artifact.predict(str(tmp_path / "ask.csv"))
    assert answer["prediction"] == pytest.approx(10.5, abs=1)


def test_type_checkers_read_the_same_table_of_public_names_as_python() -> None:
    tree = ast.parse(Path(danlu.__file__).read_text("utf-8"))
    (typed,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imported = {
        alias.asname: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == danlu._HOMES
    for name, home in danlu._HOMES.items():
        assert getattr(danlu, name) is getattr(importlib.import_module(home), name)
