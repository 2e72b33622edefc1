"""Studies whose trials are one program: told as they end, pruned alike, in folds, copied from one another, and never lost."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import danlu
import make
from danlu.errors import RunError
from danlu.search.executors import vectorised
from danlu.search.executors.forks import Fork, can_fork

RECIPE: dict[str, Any] = make.digits(
    name="many",
    model={"name": "mlp", "hidden": [16], "dropout": 0.1},
    optimizer="adam",
    train={"steps": 24, "evaluate_every": 6, "batch_size": 48, "threads": 1},
    tune={
        "space": {
            "optimizer.learning_rate": {"low": 1e-4, "high": 0.05, "log": True},
            "model.dropout": {"low": 0.05, "high": 0.5},
        },
        "trials": 9,
        "sampler": "random",
        "on": "vectorised",
    },
)


def changed(**tune: Any) -> dict[str, Any]:
    return {**RECIPE, "tune": {**RECIPE["tune"], **tune}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))


def test_trials_of_several_shapes_end_like_those_trained_one_after_another(tmp_path: Path) -> None:
    space = {**RECIPE["tune"]["space"], "model.hidden": [[16], [24]]}
    stacked = danlu.tune(changed(space=space), tmp_path / "stacked")
    single = danlu.tune(changed(space=space, on="one_by_one"), tmp_path / "single")
    assert stacked.executor == "vectorised"
    assert [record.values for record in stacked.trials] == [
        record.values for record in single.trials
    ]
    for one, other in zip(stacked.trials, single.trials):
        assert one.state == other.state == "complete"
        assert one.facts["parameters"] == other.facts["parameters"]
        assert one.steps == other.steps
        assert [evaluation for evaluation, _ in one.curve] == [
            evaluation for evaluation, _ in other.curve
        ]
        # bfloat16 may be chosen for the stack
        assert one.scores == pytest.approx(other.scores, rel=0.02)
    assert stacked.best is not None and stacked.recipe is not None


def test_folds_of_all_trials_stand_in_one_stack(tmp_path: Path) -> None:
    stacked = danlu.tune(changed(folds=3, trials=4), tmp_path / "stacked")
    single = danlu.tune(changed(folds=3, trials=4, on="one_by_one"), tmp_path / "single")
    for one, other in zip(stacked.trials, single.trials):
        assert len(one.facts["folds"]) == 3
        assert one.scores == pytest.approx(other.scores, rel=0.02)


def test_a_pruner_ends_trials_of_a_stack_the_same_every_time(tmp_path: Path) -> None:
    asked = changed(trials=16, pruner={"name": "successive_halving"})
    first, second = (danlu.tune(asked, tmp_path / name) for name in ("first", "second"))
    states = [record.state for record in first.trials]
    assert "pruned" in states and "complete" in states
    assert states == [record.state for record in second.trials]
    assert all(record.steps < 24 for record in first.trials if record.state == "pruned")


def test_the_worst_of_a_population_become_copies_of_the_best(tmp_path: Path) -> None:
    found = danlu.tune(
        changed(trials=8, pruner={"name": "population_based", "share": 0.25}), tmp_path / "study"
    )
    became = [
        record
        for record in found.trials
        if "became" in record.facts and record.facts["became"] != dict(record.values)
    ]
    assert became and all(record.state == "complete" for record in found.trials)
    for record in became:
        assert 1e-4 <= record.facts["became"]["optimizer.learning_rate"] <= 0.05


def test_copies_between_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="different folds"):
        danlu.tune(changed(trials=8, folds=2, pruner="population_based"), tmp_path / "study")


def test_a_trial_that_fails_takes_none_with_it(tmp_path: Path) -> None:
    space = {"optimizer.learning_rate": [0.01, 1e30, 0.02, 0.03]}
    recipe = {**changed(space=space, trials=4, sampler="grid"), "optimizer": "sgd"}
    found = danlu.tune(recipe, tmp_path / "study")
    states = {record.values["optimizer.learning_rate"]: record.state for record in found.trials}
    assert states == {0.01: "complete", 1e30: "failed", 0.02: "complete", 0.03: "complete"}


@pytest.mark.skipif(not can_fork(), reason="stacks are forked on Linux")
def test_a_stack_that_is_killed_is_trained_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = danlu.tune(changed(), tmp_path / "whole")
    sizes: list[int] = []
    started = vectorised.BatchRunner._work_for

    def killed_once(self: vectorised.BatchRunner, group: Any) -> Any:
        sizes.append(len(group.trainings))
        work = started(self, group)
        if len(sizes) > 1:
            return work
        return lambda say: os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(vectorised.BatchRunner, "_work_for", killed_once)
    found = danlu.tune(changed(), tmp_path / "study")
    assert [record.state for record in found.trials] == ["complete"] * 9
    assert sizes[0] in [sum(pair) for pair in itertools.pairwise(sizes)]
    assert [record.scores for record in found.trials] == [
        pytest.approx(record.scores, rel=0.02) for record in whole.trials
    ]


@pytest.mark.skipif(not can_fork(), reason="work is forked on Linux")
def test_a_fork_says_what_it_met_and_how_it_ended(tmp_path: Path) -> None:
    def work(say: Any) -> None:
        assert say({"say": "hello"}) == {"number": 3}
        raise MemoryError("too much")

    fork = Fork(work, tmp_path / "log")
    assert fork.receive(600)["say"] == "hello"
    fork.answer({"number": 3})
    message = fork.receive(600)
    assert message["say"] == "failed" and message["kind"] == "memory"
    assert fork.receive(600) == {"say": "ended", "code": 1}
    fork.kill()


def test_what_was_measured_is_kept_with_the_study(tmp_path: Path) -> None:
    found = danlu.tune(changed(on="auto", trials=12), tmp_path / "study")
    assert found.executor in ("vectorised", "one_by_one")
    again = danlu.tune(changed(on="auto", trials=12), tmp_path / "study")
    assert again.executor == found.executor and again.trials == found.trials
