"""danlu tune as a user types it: a search, its failures, its pruning, folds, Ctrl-C, and the recipe that it leads to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import make

pytest.importorskip("optuna")

import danlu
from danlu.errors import DanluError, RunError
from danlu.recipe import write_yaml

SPACE = {
    "optimizer.learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
    "model.hidden": [[8], [16]],
}


def recipe(space: dict[str, Any] = SPACE, **changes: Any) -> dict[str, Any]:
    tune = {
        "space": space,
        "trials": 4,
        "on": "one_by_one",
        "objectives": [{"metric": "accuracy"}],
        **changes.pop("tune", {}),
    }
    return {**make.iris(train={"epochs": 3, "batch_size": 16, "threads": 1}, tune=tune), **changes}


def typed(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DANLU_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "danlu", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_search_ends_in_a_recipe_that_trains(tmp_path: Path) -> None:
    (tmp_path / "iris.yaml").write_text(write_yaml(recipe()))
    checked = typed("check", "iris.yaml", cwd=tmp_path)
    assert "sampler:" in checked.stdout and "name: bayesian" in checked.stdout
    first = typed("tune", "iris.yaml", "--study", "found", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "4 trials: 4 complete" in first.stdout and "accuracy" in first.stdout
    assert "trials run: one by one" in first.stderr and "4/4 trials" in first.stderr
    again = typed("tune", "iris.yaml", "tune.trials=6", "--study", "found", "--json", cwd=tmp_path)
    told = json.loads(again.stdout)
    assert told["states"] == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    assert told["best"]["scores"][0] == max(trial["scores"][0] for trial in told["trials"])
    trained = typed("train", "found/best.yaml", "--run", "run", "--json", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    scores = json.loads(trained.stdout)["scores"]["validation"]
    assert (
        scores["accuracy"] == told["best"]["facts"]["scores"]["accuracy"]
    )  # the same training, bit for bit
    assert scores["loss"] == told["best"]["facts"]["scores"]["loss"]


def test_a_trial_is_what_danlu_train_makes_of_its_recipe_and_only_the_best_keeps_its_artifact(
    tmp_path: Path,
) -> None:
    found = danlu.tune(recipe(), tmp_path / "study")
    for record in found.trials:
        artifact = danlu.train(recipe(), tmp_path / f"run-{record.number}", dict(record.values))
        assert artifact.scores["validation"]["loss"] == record.facts["scores"]["loss"]
    assert found.best is not None
    kept = [path.parent.name for path in (tmp_path / "study" / "trials").glob("*/artifact")]
    assert kept == [f"{found.best.number:04d}"]
    assert not list((tmp_path / "study" / "trials").glob("*/checkpoints"))
    assert (
        danlu.load(tmp_path / "study" / "trials" / kept[0]).scores["validation"]["accuracy"]
        == found.best.scores[0]
    )  # type: ignore[index]


def test_trials_that_fail_are_marked_with_their_cause_and_the_study_goes_on(tmp_path: Path) -> None:
    space = {"optimizer.learning_rate": [0.01, 1e30, 0.02], "train.on_nan": ["stop"]}
    found = danlu.tune(
        recipe(space, optimizer="sgd", tune={"sampler": "grid", "trials": 10}), tmp_path / "study"
    )
    failed = [record for record in found.trials if record.state == "failed"]
    assert [record.values["optimizer.learning_rate"] for record in failed] == [1e30]
    assert "NaN or infinite" in failed[0].cause
    assert sum(record.state == "complete" for record in found.trials) == 2


def test_a_trial_that_falls_behind_is_ended_at_an_evaluation(tmp_path: Path) -> None:
    space = {"optimizer.learning_rate": [0.05, 0.04, 0.03, 1e-7]}
    changes = {
        "pruner": {"name": "median", "trials": 1},
        "sampler": {"name": "grid", "shuffle": False},
    }
    found = danlu.tune(recipe(space, tune=changes), tmp_path / "study")
    last = found.trials[3]
    assert last.state == "pruned" and "behind the others" in last.cause
    assert 1 <= len(last.curve) < 3 and last.scores is None
    assert not (tmp_path / "study" / "trials" / "0003" / "artifact").exists()


def test_several_objectives_are_measured(tmp_path: Path) -> None:
    objectives = [{"metric": "accuracy"}, {"metric": "parameters"}, {"metric": "loss"}]
    found = danlu.tune(
        recipe(tune={"objectives": objectives, "sampler": "multi_objective"}), tmp_path / "study"
    )
    assert found.objectives == [("accuracy", "higher"), ("parameters", "lower"), ("loss", "lower")]
    for record in found.trials:
        accuracy, parameters, loss = record.scores  # type: ignore[misc]
        hidden = record.values["model.hidden"][0]
        assert parameters == 4 * hidden + hidden + 3 * hidden + 3
        assert (accuracy, loss) == (
            record.facts["scores"]["accuracy"],
            record.facts["scores"]["loss"],
        )


def test_the_score_of_a_trial_is_the_mean_over_folds_where_the_recipe_says_so(
    tmp_path: Path,
) -> None:
    found = danlu.tune(recipe(tune={"folds": 3, "trials": 2}), tmp_path / "study")
    for record in found.trials:
        folds = danlu.cross_validate(
            danlu.read_recipe(recipe(), dict(record.values)), 3, tmp_path / f"cv-{record.number}"
        )
        assert record.scores == (folds["mean"]["accuracy"],)
        assert [place for place, _ in record.curve] == [1, 2, 3]


def test_ctrl_c_leaves_a_usable_study_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "iris.yaml").write_text(write_yaml(recipe(tune={"trials": 40})))
    environment = {**os.environ, "DANLU_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "danlu", "tune", "iris.yaml", "--study", "found"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 100
    while not (tmp_path / "found" / "trials" / "0003").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in said and "same command again" in said
    assert (tmp_path / "found" / "best.yaml").is_file()
    stopped = danlu.tune(tmp_path / "iris.yaml", tmp_path / "found", {"tune.trials": 1})
    begun = len(stopped.trials)
    assert 4 <= begun < 40 and not any(record.state == "running" for record in stopped.trials)
    found = danlu.tune(tmp_path / "iris.yaml", tmp_path / "found", {"tune.trials": begun + 2})
    unbroken = danlu.tune(tmp_path / "iris.yaml", tmp_path / "unbroken", {"tune.trials": begun + 2})
    assert [(record.values, record.scores, record.curve) for record in found.trials] == [
        (record.values, record.scores, record.curve) for record in unbroken.trials
    ]


def test_what_cannot_be_searched_is_told_before_any_trial(tmp_path: Path) -> None:
    plain = {key: value for key, value in recipe().items() if key != "tune"}
    with pytest.raises(RunError, match="no section tune"):
        danlu.tune(plain, tmp_path / "study")
    with pytest.raises(RunError, match=r"tune\.objectives names acuracy"):
        danlu.tune(recipe(tune={"objectives": [{"metric": "acuracy"}]}), tmp_path / "study")
    with pytest.raises(RunError, match="validation split has no row"):
        danlu.tune(
            {
                **recipe(),
                "data": {**recipe()["data"], "split": {"name": "random", "validation": 0}},
            },
            tmp_path / "study",
        )
    with pytest.raises(RunError, match="many trials are one program"):
        danlu.tune(recipe(tune={"pruner": "population_based"}), tmp_path / "study")
    with pytest.raises(DanluError):
        danlu.tune(
            {**recipe(), "data": {"source": str(tmp_path / "nowhere.csv"), "target": "y"}},
            tmp_path / "study",
        )


@pytest.mark.parametrize(
    ("library", "extra"), [("optuna", "tune"), ("sqlalchemy", "tune"), ("psycopg", "databases")]
)
def test_a_library_that_is_not_there_names_its_extra(
    library: str, extra: str, tmp_path: Path
) -> None:
    changes = {"storage": "postgresql://danlu@127.0.0.1:1/danlu"} if extra == "databases" else {}
    (tmp_path / "iris.yaml").write_text(write_yaml(recipe(tune=changes)))
    code = f"import sys; sys.modules[{library!r}] = None; sys.argv = ['danlu', 'tune', 'iris.yaml', '--allow-remote']; from danlu.cli.app import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    assert f"pip install 'danlu[{extra}]'" in said.stderr


def test_train_leaves_the_section_tune_out(tmp_path: Path) -> None:
    plain = {key: value for key, value in recipe().items() if key != "tune"}
    danlu.train(recipe(), tmp_path / "run")
    danlu.train(plain, tmp_path / "run")  # the folder's own recipe
    assert "\ntune:" not in (tmp_path / "run" / "recipe.lock.yaml").read_text("utf-8")
