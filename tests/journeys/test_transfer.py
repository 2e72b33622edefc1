"""Tune small, train large, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import danlu
from danlu.errors import ArtifactError, RecipeError, TrainingStopped
from danlu.layers.parametrization import Readout
from danlu.search import width_transfer

pytest.importorskip("optuna")

RECIPE = """
task: classification
data: {source: sklearn, target: label}
model: {name: mlp, hidden: [128, 64], dropout: 0}
optimizer: {name: adamw}
train: {steps: 30, batch_size: 64, threads: 1}
tune:
  space:
    optimizer.learning_rate: {low: 0.0005, high: 0.02, log: true}
    model.dropout: [0.0, 0.1]
  sampler: random
  trials: 3
  on: one_by_one
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "digits.yaml"
    path.write_text(RECIPE)
    return path


def test_what_is_found_narrow_is_written_wide_and_trains(recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = danlu.tune_at_width(recipe, 32, "study", transfer=True, say=said.append)
    assert (found.width, found.narrow) == (128, 32)
    assert [record.state for record in found.study.trials] == ["complete"] * 3
    assert "coordinate check passed" in said[0]
    check = json.loads(Path("study/coordinate_check.json").read_text())["adamw"]
    assert check["passed"] and check["widths"] == [32, 64, 128]

    narrow = danlu.read_recipe("study/best.yaml")
    assert narrow.model.options.hidden == [32, 16]
    wide = danlu.read_recipe(found.recipe)
    assert wide.tune is None
    assert wide.model.options.hidden == [128, 64]
    assert (wide.model.options.parametrization, wide.model.options.base_width) == ("mup", 32)
    assert (
        wide.optimizer.options.learning_rate == found.study.best.values["optimizer.learning_rate"]
    )
    assert wide.model.options.dropout == found.study.best.values["model.dropout"]
    text = Path("study/wide.yaml").read_text()
    assert (
        f"# Width 128, with the values of trial {found.study.best.number} of 3 at width 32" in text
    )
    assert "Regularization (model.dropout)" in text

    again: list[str] = []
    assert (
        danlu.tune_at_width(recipe, 32, "study", transfer=True, say=again.append).as_dict()
        == found.as_dict()
    )
    assert again == []  # a finished check is not repeated

    artifact = danlu.train(wide, "run")
    readout = [layer for layer in artifact.module.modules() if isinstance(layer, Readout)]
    assert [layer.multiplier for layer in readout] == [0.25]
    assert (
        artifact.scores["validation"]["accuracy"]
        == danlu.evaluate(danlu.load("run"), split="validation").values["accuracy"]
    )


def test_a_failing_coordinate_check_stops_before_any_trial(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readout, "forward", nn.Linear.forward)  # its multiplier is left out
    with pytest.raises(
        TrainingStopped, match="The best options at width 8 would not be the best at 128"
    ):
        danlu.tune_at_width(recipe, 8, "study", overrides=["optimizer.learning_rate=0.003"])
    kept = json.loads(Path("study/coordinate_check.json").read_text())
    assert kept["adamw"]["passed"] is False
    assert kept["adamw"]["wrong"]
    assert not Path("study/trials").exists()


def test_every_optimizer_that_is_searched_is_checked(recipe: Path) -> None:
    overrides: dict[str, Any] = {
        "tune.space": {"optimizer": ["momentum", "adamw"]},
        "tune.trials": 1,
    }
    found = danlu.tune_at_width(recipe, 32, "study", overrides)
    assert list(found.checks) == ["momentum", "adamw"]
    assert found.recipe is None


@pytest.mark.parametrize("name", ["model.hidden", "model.base_width", "model"])
def test_a_search_that_chooses_the_width_is_refused(recipe: Path, name: str) -> None:
    choices = {
        "model.hidden": [[8], [16]],
        "model.base_width": [8, 16],
        "model": ["linear", "mlp"],
    }[name]
    with pytest.raises(RecipeError, match=f"tune.space: {name} changes the width"):
        danlu.tune_at_width(recipe, 32, "study", {"tune.space": {name: choices}})


def test_a_base_of_its_own_is_kept(recipe: Path) -> None:
    checked = danlu.read_recipe(recipe, {"model.parametrization": "mup", "model.base_width": 64})
    assert width_transfer._under_mup(checked, 32) is checked


def test_weights_learnt_behind_other_multipliers_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("To be, or not to be, that is the question.\n" * 200)
    tree = {
        "task": {"name": "language_modeling", "context": 16},
        "data": {
            "source": {"name": "text", "path": "text.txt"},
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
            "split": {"name": "in_order", "validation": 0.1, "test": 0},
            "checks": "off",
        },
        "model": {
            "name": "gpt",
            "width": 32,
            "num_layers": 1,
            "num_heads": 2,
            "parametrization": "mup",
            "base_width": 8,
        },
        "optimizer": "adamw",
        "train": {"steps": 4, "batch_size": 8, "threads": 1},
    }
    first = danlu.train(tree, "first")
    onward = {**tree, "model": {**tree["model"], "weights": "first"}}
    second = danlu.train(
        {**onward, "optimizer": {"name": "adamw", "learning_rate": 0.0, "weight_decay": 0.0}},
        "second",
    )
    tokens = {name: torch.tensor([[5, 6, 7, 8]]) for name in ("tokens", "text")}
    assert torch.equal(first.module(tokens), second.module(tokens))
    with pytest.raises(ArtifactError, match="trained with other multipliers") as raised:
        danlu.train(
            {**onward, "model": {**onward["model"], "parametrization": "standard"}}, "third"
        )
    assert "parametrization: mup, base_width: 8" in str(raised.value)
