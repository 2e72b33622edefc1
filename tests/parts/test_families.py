"""Every family, from recipe to answers: what the artifact says of itself is what an evaluation finds, and it answers its own data.

That each of them resumes bit for bit is held by tests/faults/test_kills.py on the same recipes.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

import danlu
from danlu import registry

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))
from family_recipes import FAMILIES

# What tests/faults/hard_recipes.py and the contracts of the single shelves hold by themselves.
OF_ROWS = {"linear", "mlp", "cnn", "python"}
OF_CHECKPOINTS = {
    "pretrained",
    "keras",
}  # tests/parts/test_pretrained.py and test_keras_model.py make some


def named(part: Any) -> str:
    return part if isinstance(part, str) else part["name"]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    home = tmp_path_factory.mktemp("families")
    found = {}
    for name, make in FAMILIES.items():
        (home / name).mkdir()
        found[name] = make(home / name)
    return found


def test_every_task_and_every_model_stands_in_some_family(
    recipes: dict[str, dict[str, Any]],
) -> None:
    tasks = {named(recipe["task"]) for recipe in recipes.values()}
    models = {named(recipe["model"]) for recipe in recipes.values() if "model" in recipe}
    rows = {
        name
        for name in registry.names("tasks")
        if registry.task_facts(name).asks in ("classes", "labels", "numbers", "several")
    }
    assert not set(registry.names("tasks")) - tasks - rows
    assert not set(registry.names("models")) - models - OF_ROWS - OF_CHECKPOINTS


@pytest.mark.parametrize("name", FAMILIES)
def test_an_artifact_scores_and_answers_as_it_says(
    name: str, recipes: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    danlu.train(recipes[name], run=tmp_path / "run")
    artifact = danlu.load(tmp_path / "run")  # as a later process finds it
    recorded = artifact.scores["test"]
    found = danlu.evaluate(artifact)
    assert found.rows == recorded["rows"] > 0
    for metric, value in found.values.items():
        if value is None:
            assert recorded[metric] is None
        else:
            # 1e-6: the same weights and rows; a sum of float32 over other pieces of them may end
            # otherwise
            assert math.isclose(value, recorded[metric], rel_tol=1e-6, abs_tol=1e-9), metric
    assert "baseline" in artifact.scores
    source = recipes[name]["data"]["source"]
    path = source if isinstance(source, str) else source.get("path")
    known = isinstance(recipes[name]["task"], dict) and "known" in recipes[name]["task"]
    if (
        path is None
        or known
        or named(recipes[name]["task"]) in ("language_modeling", "masked_language_modeling")
    ):
        return  # no file to answer; or one that must go on with what is known ahead; or a text, which generate continues
    answers = artifact.predict(path)
    assert answers and all("prediction" in answer for answer in answers)
    json.dumps(answers, allow_nan=False)
