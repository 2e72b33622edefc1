"""NaN, infinity, divergence, and what a healthy training never shows: told once, with the step, the tensor, the file and the row."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hard_recipes import RECIPES
from lives import Lives, differing, fingerprint, last_checkpoint, write_recipe
from safetensors.numpy import load_file


def recipe_of(folder: Path, on_nan: str, batch_norm: bool = True, **train: Any) -> Path:
    recipe = RECIPES["nan"](folder)
    recipe["model"]["batch_norm"] = batch_norm
    recipe["train"] |= {"on_nan": on_nan, **train}
    return write_recipe(folder / f"{on_nan}.json", recipe)


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_stop_names_step_tensor_file_and_row_and_saves_the_state_before_it(
    batch_norm: bool, tmp_path: Path, found: Lives
) -> None:
    recipe, run = recipe_of(tmp_path, "stop", batch_norm, save_every=1000), tmp_path / "run"
    stopped = found.run("train", recipe, "--run", run, code=3)
    told = re.search(
        r"step (\d+): (.+?) is NaN or infinite \((.*)\); it changed no weight", stopped.err
    )
    assert told, stopped.err
    step = int(told[1])
    assert "running_var" in told[2] if batch_norm else told[2] == "the loss"
    assert re.search(r"spoilt\.csv row (19|203)\b", told[3]), (
        "row 17 or 201 of the table, in a file with a head"
    )
    # the state is that of a run that ends one step earlier
    found.run("train", recipe, f"train.steps={step - 1}", "--run", tmp_path / "shorter")
    weights, wanted = (
        load_file(last_checkpoint(each) / "state.safetensors")
        for each in (run, tmp_path / "shorter")
    )
    assert last_checkpoint(run).name == f"step-{step - 1:010d}"
    assert weights.keys() == wanted.keys() and all(
        np.array_equal(weights[name], wanted[name]) for name in wanted
    )
    assert all(np.isfinite(each).all() for each in weights.values())
    # the same command comes to the same point, and says the same
    assert (
        found.run("train", recipe, "--run", run, code=3).err.splitlines()[-2:]
        == stopped.err.splitlines()[-2:]
    )


def test_a_run_that_stopped_can_go_on_with_skip_as_if_that_had_been_asked_from_the_start(
    tmp_path: Path, found: Lives
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    found.run("train", recipe_of(tmp_path, "stop"), "--run", run, code=3)
    skipping = recipe_of(tmp_path, "skip")
    assert "The update is skipped." in found.run("train", skipping, "--run", run).err
    found.run("train", skipping, "--run", whole)
    assert differing(fingerprint(whole), fingerprint(run)) == []
    refused = found.run("train", recipe_of(tmp_path, "stop"), "--run", run, code=2)
    assert re.search("train.on_nan: .*skip.* -> .*stop", refused.err), (
        "what was left out cannot be taken back"
    )


def test_skip_leaves_out_the_update_and_logs_no_number_for_it(tmp_path: Path, found: Lives) -> None:
    run = tmp_path / "run"
    life = found.run("train", recipe_of(tmp_path, "skip", report_every=1), "--run", run)
    steps = [int(each) for each in re.findall(r"step (\d+): .*?is skipped", life.err)]
    assert len(steps) >= 3
    for report in logged(run):
        assert (
            (report["loss"] is None) == (report["step"] in steps) == (report["grad_norm"] is None)
        )
    provenance = json.loads((run / "artifact" / "artifact.json").read_bytes().splitlines()[0])[
        "provenance"
    ]
    assert provenance["skipped"] == [step - 1 for step in steps]
    assert all(
        np.isfinite(each).all()
        for each in load_file(run / "artifact" / "weights.safetensors").values()
    )


def test_roll_back_leaves_out_every_update_since_the_last_planned_checkpoint(
    tmp_path: Path, found: Lives
) -> None:
    run = tmp_path / "run"
    life = found.run(
        "train", recipe_of(tmp_path, "roll_back", report_every=1, save_every=4), "--run", run
    )
    told = re.findall(
        r"step (\d+): .*?Back to step (\d+); updates? (\d+)(?: to (\d+))? (?:is|are) skipped",
        life.err,
    )
    assert len(told) >= 3
    left_out = set()
    for step, back, first, last in told:
        assert int(back) == (int(step) - 1) // 4 * 4
        assert (int(first), int(last or first)) == (int(back) + 1, int(step))
        left_out |= set(range(int(first), int(step) + 1))
    silent = {report["step"] for report in logged(run) if report["loss"] is None}
    assert silent == left_out
    assert [report["step"] for report in logged(run)] == list(range(1, 61)), (
        "the log was cut back as well"
    )


def test_training_that_keeps_failing_is_stopped_whatever_the_policy(
    tmp_path: Path, found: Lives
) -> None:
    recipe = RECIPES["nan"](tmp_path)
    recipe["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    recipe["data"]["columns"] = {"price": {"use": False}}
    recipe["train"]["on_nan"] = "skip"
    stopped = found.run(
        "train", write_recipe(tmp_path / "recipe.json", recipe), "--run", tmp_path / "run", code=3
    )
    assert "It happened 10 times before" in stopped.err
    assert stopped.err.count("is skipped") == 10


def test_a_learning_rate_beyond_reason_ends_with_exit_code_3_and_one_message(
    tmp_path: Path, found: Lives
) -> None:
    recipe = RECIPES["plateau"](tmp_path)
    recipe["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    stopped = found.run(
        "train", write_recipe(tmp_path / "recipe.json", recipe), "--run", tmp_path / "run", code=3
    )
    assert "is NaN or infinite" in stopped.err and "lower optimizer.learning_rate" in stopped.err
    for report in logged(tmp_path / "run"):
        assert all(
            value is None or np.isfinite(value)
            for value in report.values()
            if not isinstance(value, str)
        ), report


def test_a_loss_that_runs_away_is_stopped_and_stays_stopped(tmp_path: Path, found: Lives) -> None:
    recipe = RECIPES["plateau"](tmp_path)
    recipe |= {
        "model": "linear",
        "optimizer": {"name": "gd", "learning_rate": 1.2},
        "schedule": "constant",
        "regularization": {},
    }
    recipe["train"] = {
        "threads": 1,
        "steps": 400,
        "batch_size": "all",
        "report_every": 1,
        "evaluate_every": 20,
    }
    path, run = write_recipe(tmp_path / "recipe.json", recipe), tmp_path / "run"
    for _ in range(2):
        stopped = found.run("train", path, "--run", run, code=3)
        assert (
            "diverged: the training loss is" in stopped.err
            and "lower optimizer.learning_rate" in stopped.err
        )
    assert not (run / "artifact").exists()
    shutil.rmtree(run / "checkpoints")
    assert found.run("train", path, "--run", run, code=3).err.count("diverged") == 1


def test_what_a_healthy_training_never_shows_is_said_once(tmp_path: Path, found: Lives) -> None:
    recipe = RECIPES["plateau"](tmp_path)
    recipe |= {
        "optimizer": {"name": "sgd", "learning_rate": 0.0},
        "schedule": "constant",
        "regularization": {},
    }
    recipe["model"]["dropout"] = 0
    recipe["train"] |= {"batch_size": "all", "steps": 40}
    life = found.run(
        "train", write_recipe(tmp_path / "recipe.json", recipe), "--run", tmp_path / "run"
    )
    assert life.err.count("the learning rate is 0") == 1
    assert life.err.count("the model does not learn") == 1


def test_a_target_of_one_class_is_told(tmp_path: Path, found: Lives) -> None:
    (tmp_path / "same.csv").write_text(
        "size,kind\n" + "".join(f"{row * 7 % 40},oak\n" for row in range(40))
    )
    recipe = {
        "task": "classification",
        "data": {"source": str(tmp_path / "same.csv"), "target": "kind"},
        "model": "linear",
        "train": {"steps": 3},
    }
    life = found.run(
        "train",
        write_recipe(tmp_path / "recipe.json", recipe),
        "--run",
        tmp_path / "run",
        code=None,
    )
    assert life.code in (0, 2)
    assert "kind" in life.err and (
        "one class" in life.err or "only one" in life.err or "oak" in life.err
    ), life.err


FROZEN = """
from torch import nn

class Frozen(nn.Module):
    def __init__(self, inputs, output):
        super().__init__()
        self.layer = nn.Linear(inputs["numbers"].shape[0], output.size).requires_grad_(False)

    def forward(self, inputs):
        return self.layer(inputs["numbers"])
"""


def test_a_model_with_nothing_to_train_is_refused(tmp_path: Path, found: Lives) -> None:
    (tmp_path / "ice.py").write_text(FROZEN)
    recipe = RECIPES["plateau"](tmp_path)
    recipe |= {
        "model": {"name": "python", "object": "ice:Frozen"},
        "optimizer": "sgd",
        "regularization": {},
    }
    recipe["train"]["steps"] = 20
    path = write_recipe(tmp_path / "recipe.json", recipe)
    refused = found.run(
        "train", path, "--run", tmp_path / "run", "--allow-code", cwd=tmp_path, code=2
    )
    assert "ice:Frozen has no parameter to train" in refused.err
