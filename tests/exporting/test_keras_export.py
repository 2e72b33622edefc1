"""An artifact as a Keras 3 file: proven on raw rows, trained on under danlu again, and never one that answers otherwise."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

import danlu
import make
from danlu.errors import ArtifactError, ExportError
from danlu.exporting.export import export, verify

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed: pip install 'danlu[keras]'", allow_module_level=True)

RECIPES: dict[str, dict[str, Any]] = {
    "cnn": make.digits(model={"name": "cnn", "width": 4, "batch_norm": False}, train={"steps": 6}),
    "mlp": {
        "task": "regression", "data": {"source": {"name": "sklearn", "set": "diabetes"}, "target": "target"},
        "model": {"name": "mlp", "hidden": [8], "batch_norm": True}, "train": {"steps": 6},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANLU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, danlu.Artifact]:
    home = tmp_path_factory.mktemp("runs")
    notes = ["red tea", "blue", "", "red red coffee"] * 100
    make.csv_file(
        home / "notes.csv", {"a": range(400), "note": notes, "y": ["p", "q", "q", "p"] * 100}
    )
    recipes = {
        **RECIPES,
        "texts": make.recipe(
            home / "notes.csv", "y", data={"columns": {"note": "text"}}, train={"steps": 6}
        ),
    }
    return {
        name: danlu.train({"name": name, **recipe}, home / name) for name, recipe in recipes.items()
    }


@pytest.mark.parametrize("name", [*RECIPES, "texts"])
def test_a_keras_file_answers_as_its_artifact_does(name, artifacts, tmp_path) -> None:
    made = export(artifacts[name], "keras", tmp_path / "keras", least_rows=64)
    assert made.manifest["proof"]["largest_difference"] < 1e-5  # measured 3e-7; allowed 1e-4
    assert verify(tmp_path / "keras", artifacts[name]).answers >= 64
    assert "keras.saving.load_model" in (tmp_path / "keras" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_it_answers_the_same_on_the_other_backends(backend, artifacts, tmp_path) -> None:
    if importlib.util.find_spec(backend) is None and not os.environ.get(
        f"DANLU_{backend.upper()}_PYTHON"
    ):
        pytest.skip(
            f"{backend} is not installed here: name an interpreter that has it in DANLU_{backend.upper()}_PYTHON"
        )
    made = export(artifacts["cnn"], "keras", tmp_path / "keras", least_rows=64)
    assert made.manifest["proof"]["by_output"][f"probabilities on {backend}"] < 1e-5


def test_an_exported_file_trains_on_under_danlu_from_where_it_stood(artifacts, tmp_path) -> None:
    made = export(artifacts["cnn"], "keras", tmp_path / "keras", least_rows=64)
    recipe = {
        **RECIPES["cnn"],
        "name": "again",
        "model": {"name": "keras", "path": str(made.path / "model.keras")},
    }
    again = danlu.train(
        {**recipe, "optimizer": {"name": "sgd", "learning_rate": 1e-9}, "train": {"steps": 1}},
        tmp_path / "again",
    )
    before, after = artifacts["cnn"].scores["test"], again.scores["test"]
    assert after["accuracy"] == before["accuracy"]


def test_a_file_whose_weights_are_stale_is_not_released(artifacts, tmp_path) -> None:
    other = danlu.train(
        {"name": "other", **RECIPES["cnn"], "train": {"steps": 5}}, tmp_path / "other"
    )
    stale = export(other, "keras", tmp_path / "stale", least_rows=64).path / "model.keras"

    def swap(folder: Path) -> None:
        (folder / "model.keras").write_bytes(stale.read_bytes())

    with pytest.raises(ExportError, match="does not answer as the artifact"):
        export(artifacts["cnn"], "keras", tmp_path / "keras", least_rows=64, changed=swap)
    assert not (tmp_path / "keras").exists()


def test_a_model_without_a_form_in_keras_is_refused_by_name(artifacts, tmp_path) -> None:
    artifact = artifacts["mlp"]
    other = danlu.train(
        {
            "name": "ft",
            **RECIPES["mlp"],
            "model": {"name": "ft_transformer", "width": 8, "num_layers": 1},
        },
        tmp_path / "ft",
    )
    with pytest.raises(ArtifactError, match="its model is ft_transformer"):
        export(other, "keras", tmp_path / "keras")
    assert artifact.recipe.model.name == "mlp" and not (tmp_path / "keras").exists()
