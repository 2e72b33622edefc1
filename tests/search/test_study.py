"""A study: suggestions stored before they are run, taken up again after a death, told once, exactly as many as asked for."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import make

pytest.importorskip("optuna")

import danlu
from danlu.data.dataset import keep_in_memory
from danlu.errors import RunError
from danlu.recipe import contains_point
from danlu.search.executors.one_trial import run_trial
from danlu.search.study import Study, Trial
from danlu.system.locks import ProcessLease
from danlu.system.trust import allow_remote

SPACE = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "model.hidden": [[8], [8, 4]],
    "optimizer": ["momentum", "adam"],
    "optimizer.momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": "momentum"}},
}


@pytest.fixture(autouse=True)
def rows_are_read_once() -> Iterator[None]:
    with keep_in_memory():
        yield


def recipe(space: dict[str, Any] = SPACE, **tune: Any) -> danlu.Recipe:
    return danlu.read_recipe(
        make.iris(
            tune={"space": space, "trials": 12, "objectives": [{"metric": "accuracy"}], **tune}
        )
    )


def worth(trial: Trial) -> float:
    """A score that is a function of the values."""
    return random.Random(json.dumps(trial.values, sort_keys=True)).random()


def ended(study: Study, count: int, most: int = 10**9) -> list[Trial]:
    """Take, report and tell trials, `count` at a time, until none is left or `most` were told."""
    told: list[Trial] = []
    while len(told) < most and (trials := study.take(count)):
        for trial in trials:
            study.report(trial, 1, worth(trial) / 2)
        for trial in trials:
            pruned = study.should_prune(trial)
            study.tell(
                trial,
                None if pruned else [worth(trial)],
                "pruned" if pruned else "complete",
                facts={"steps": 3, "seconds": 1.5},
            )
            told.append(trial)
            if len(told) == most:
                break
    return told


def die(study: Study) -> None:
    """What the system does when a process is killed: files are closed, nothing else."""
    import os

    study.storage.optuna_storage.engine.dispose()
    assert study.owner._handle is not None
    os.close(study.owner._handle)


def findings(study: Study) -> list[dict[str, Any]]:
    return [record.as_dict() for record in study.trials()]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "bayesian", "random_trials": 3},
        {"name": "multi_objective", "population": 4},
        "quasi_random",
    ],
)
def test_a_study_whose_process_dies_at_any_trial_goes_on_as_the_unbroken_one(
    sampler: Any, count: int, tmp_path: Path
) -> None:
    about = recipe(sampler=sampler, pruner={"name": "median", "trials": 2})
    with Study(about, tmp_path / "unbroken" / "study") as study:
        ended(study, count)
        expected = findings(study)
        best = study.best()
    for moment in (1, 6, 11):
        folder = tmp_path / str(moment) / "study"
        study = Study(about, folder)
        ended(study, count, most=moment)
        begun = [study._trial(entry) for entry in study.running_here.values()] or study.take(
            count
        )  # it dies with trials begun
        die(study)
        with Study(about, folder) as again:
            left = again.take(count)
            assert [(each.number, each.values) for each in left] == [
                (each.number, each.values) for each in begun if each
            ]
            again.close()
        with Study(about, folder) as again:
            ended(again, count)
            assert findings(again) == expected
            assert again.best() == best


def test_a_batch_that_was_told_in_part_is_finished_before_another_is_suggested(
    tmp_path: Path,
) -> None:
    study = Study(recipe(), tmp_path / "study")
    batch = study.take(4)
    for trial in batch[:3]:
        study.tell(trial, [worth(trial)], "complete")
    die(study)
    with Study(recipe(), tmp_path / "study") as again:
        assert [each.number for each in again.take(4)] == [3]
        assert [each.number for each in again.take(4)] == [4, 5, 6, 7]


def test_processes_that_share_a_study_end_exactly_as_many_trials_as_asked_for(
    tmp_path: Path,
) -> None:
    about = recipe(trials=40, sampler="random")
    studies = [
        Study(about, tmp_path / "study") for _ in range(4)
    ]  # a lock for each, as for processes
    told: list[list[Trial]] = [[] for _ in studies]
    failures: list[BaseException] = []

    def work(place: int) -> None:
        try:
            told[place] = ended(studies[place], 1 + place % 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(trial.number for each in told for trial in each) == list(range(40))
    records = studies[0].trials()
    assert [record.state for record in records] == ["complete"] * 40
    assert len({json.dumps(record.values, sort_keys=True) for record in records}) == 40
    for study in studies:
        study.close()


def test_the_trials_of_a_living_process_are_left_to_it(tmp_path: Path) -> None:
    with (
        Study(recipe(trials=2), tmp_path / "study") as one,
        Study(recipe(trials=2), tmp_path / "study") as other,
    ):
        assert [each.number for each in one.take(1)] == [0]
        assert [each.number for each in other.take(5)] == [1]
        assert other.take(5) == []


def test_a_process_that_stops_leaves_its_trials_to_the_next_at_once(tmp_path: Path) -> None:
    with Study(recipe(), tmp_path / "study") as study:
        taken = study.take(2)
    with Study(recipe(), tmp_path / "study") as study:
        assert [each.values for each in study.take(2)] == [each.values for each in taken]


def test_a_trial_is_told_once(tmp_path: Path) -> None:
    with Study(recipe(), tmp_path / "study") as study:
        (trial,) = study.take(1)
        entry = study.running_here[0]
        study.tell(trial, [0.5], "complete")
        assert not study.storage.finish(entry, "failed", None, {"cause": "late"}, {})
        assert study.trials()[0].state == "complete"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_a_failure_and_the_study_goes_on(
    value: float, tmp_path: Path
) -> None:
    with Study(recipe(trials=3), tmp_path / "study") as study:
        (trial,) = study.take(1)
        study.tell(trial, [value], "complete")
        assert study.trials()[0].state == "failed"
        assert "finite" in study.trials()[0].cause
        assert len(ended(study, 1)) == 2


def test_values_that_do_not_fit_together_are_a_trial_that_failed(tmp_path: Path) -> None:
    space = {
        "train.micro_batch": [16, 64],
        "train.batch_size": [32, 128],
    }  # 64 of 32 is refused, each alone is not
    with Study(recipe(space, sampler="grid"), tmp_path / "study") as study:
        told = ended(study, 1)
        records = study.trials()
    assert len(told) == 3 and len(records) == 4
    (failed,) = [record for record in records if record.state == "failed"]
    assert failed.values == {"train.micro_batch": 64, "train.batch_size": 32}
    assert "micro_batch" in failed.cause


def test_a_study_says_what_differs_where_it_belongs_to_another_search(tmp_path: Path) -> None:
    Study(recipe(), tmp_path / "study").close()
    with pytest.raises(RunError, match=r"tune\.seed: 0 -> 1"):
        Study(recipe(seed=1), tmp_path / "study")
    with Study(recipe(trials=20, on="one_by_one"), tmp_path / "study") as study:  # what may change
        assert study.budget == 20


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(tmp_path: Path) -> None:
    with Study(recipe(trials=5), tmp_path / "a" / "study") as study:
        ended(study, 1)
    with Study(recipe(trials=9), tmp_path / "a" / "study") as study:
        ended(study, 1)
        grown = findings(study)
    with Study(recipe(trials=9), tmp_path / "b" / "study") as study:
        ended(study, 1)
        assert findings(study) == grown


def test_no_trial_begins_after_the_minutes(tmp_path: Path) -> None:
    with Study(recipe(trials=None, minutes=10.0), tmp_path / "study") as study:
        assert study.budget is None
        (trial,) = study.take(1)
        study.started_at -= 601
        study.tell(trial, [0.5], "complete")
        assert study.take(1) == []
    with Study(recipe(trials=None, minutes=10.0), tmp_path / "study") as study:
        assert study.take(1) == []  # what was spent before counts
    with Study(recipe(trials=None, minutes=30.0), tmp_path / "study") as study:
        assert len(study.take(1)) == 1


def test_a_grid_ends_the_study(tmp_path: Path) -> None:
    with Study(
        recipe({"model.hidden": [[8], [4]], "train.seed": [1, 2, 3]}, trials=100, sampler="grid"),
        tmp_path / "study",
    ) as study:
        assert len(ended(study, 4)) == study.budget == 6


def test_what_was_decided_stays_decided(tmp_path: Path) -> None:
    with Study(recipe(), tmp_path / "study") as study:
        assert study.decide("group", lambda: 8) == 8
        assert study.decide("group", lambda: 16) == 8
    with Study(recipe(), tmp_path / "study") as study:
        assert study.plan == {"group": 8}
        assert study.decide("group", lambda: 16) == 8


def test_one_decision_may_ask_for_another(tmp_path: Path) -> None:
    with Study(recipe(), tmp_path / "study") as study:
        assert study.decide("executor", lambda: study.decide("pace", lambda: [1, 2])) == [1, 2]
        assert study.plan == {"executor": [1, 2], "pace": [1, 2]}


def test_the_best_recipe_can_be_trained_as_it_is(tmp_path: Path) -> None:
    with Study(recipe(trials=4), tmp_path / "study") as study:
        assert study.write_best() is None
        ended(study, 1)
        path, best = study.write_best(), study.best()
    assert path is not None and best is not None
    found = danlu.read_recipe(path)
    assert found.model.options.hidden == best.values["model.hidden"]  # type: ignore[attr-defined]
    assert f"# Trial {best.number}, the best of 4: accuracy {best.scores[0]:.6g}" in path.read_text(
        "utf-8"
    )  # type: ignore[index]


def test_a_curve_is_kept_with_the_trial(tmp_path: Path) -> None:
    with Study(recipe(), tmp_path / "study") as study:
        (trial,) = study.take(1)
        study.report(trial, 1, 0.25)
        study.report(trial, 2, 0.5)
        study.flush()
        study.report(trial, 2, 0.5)  # said again by a training that went on
        study.report(trial, 3, 0.75)
        study.tell(trial, [0.75], "complete")
    with Study(recipe(), tmp_path / "study") as study:
        assert study.trials()[0].curve == ((1, 0.25), (2, 0.5), (3, 0.75))


def test_optuna_reads_the_study(tmp_path: Path) -> None:
    import optuna

    with Study(recipe(), tmp_path / "digits") as study:
        ended(study, 3)
        records = study.trials()
        space = study.space
    found = optuna.load_study(
        study_name="digits", storage=f"sqlite:///{tmp_path / 'digits' / 'study.sqlite'}"
    )
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 12
    assert found.best_value == max(record.scores[0] for record in records if record.scores)
    assert (
        found.trials[0].params["optimizer.learning_rate"]
        == records[0].values["optimizer.learning_rate"]
    )
    assert {trial.params["model.hidden"] for trial in found.trials} == {"[8]", "[8, 4]"}
    assert all(contains_point(space, record.values) for record in records)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none", "cannot be used"),
        ("sqlite:////proc/nowhere/study.sqlite", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(
    url: str, expected: str, tmp_path: Path
) -> None:
    with allow_remote(), pytest.raises(RunError, match=expected) as raised:
        Study(recipe(storage=url), tmp_path / "study")
    assert "secret" not in str(raised.value)


def test_an_owner_is_alive_as_long_as_its_process_holds_its_file(tmp_path: Path) -> None:
    with ProcessLease(tmp_path) as one, ProcessLease(tmp_path) as other:
        assert one.is_alive(other.name) is True
        (tmp_path / "dead").touch()
        assert one.is_alive("dead") is False
        assert one.is_alive("elsewhere") is None
    with ProcessLease(tmp_path) as one:
        assert one.is_alive(other.name) is None


def test_a_trial_that_finished_unheard_tells_its_scores_again(tmp_path: Path) -> None:
    recipe = danlu.read_recipe(
        make.iris(
            model={"name": "mlp", "hidden": [4]},
            train={"epochs": 3, "batch_size": 16, "threads": 1},
        )
    )
    lives: list[list[tuple[int, float]]] = []
    for _ in range(2):  # the second finds the artifact of the first
        lives.append([])
        outcome = run_trial(
            recipe,
            tmp_path / "trial",
            ["accuracy"],
            None,
            lambda n, value: lives[-1].append((n, value)) or False,
        )
        assert outcome.state == "complete", outcome.cause
    assert lives[0] == lives[1] and len(lives[0]) == 3
