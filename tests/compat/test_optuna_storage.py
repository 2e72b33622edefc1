"""A study's trials by Optuna's tables and by its public API: the same is stored, and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from danlu.compat.optuna_storage import (  # noqa: E402
    ApiTrialTable,
    NewTrial,
    Parameter,
    SqlTrialTable,
    TrialTable,
    open_trial_table,
)

KINDS = [SqlTrialTable, ApiTrialTable]
RATE = optuna.distributions.FloatDistribution(1e-4, 0.1, log=True)
NAME = optuna.distributions.CategoricalDistribution(("sgd", "adam"))


def table(kind: type[TrialTable], folder: Path) -> TrialTable:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.sqlite'}")
    optuna.create_study(
        storage=storage, study_name="s", directions=["maximize", "minimize"], load_if_exists=True
    )
    return kind(storage, storage.get_study_id_from_name("s"))


def new(rate: float, index: int, batch: Sequence[int]) -> NewTrial:
    choice = NAME.choices[index]
    return NewTrial(
        {"values": {"rate": rate, "name": choice}, "owner": "me", "batch": list(batch)},
        {"rate": Parameter(rate, rate, RATE), "name": Parameter(choice, float(index), NAME)},
    )


def run(trials: TrialTable) -> list[bool]:
    """What happens to a study's trials: two batches, curves, ends, a trial that is ended twice."""
    first = trials.add(0, [new(0.001, 0, (0, 2)), new(0.002, 1, (0, 2))])
    trials.store_curves({first[0].key: {1: 0.25, 2: 0.5}, first[1].key: {1: 0.125}})
    trials.store_curves({first[0].key: {2: 0.625}})
    told = {"told": {"cause": "", "facts": {"steps": 3}}}
    done = [trials.finish(first[0], "complete", [0.75, 3.0], told, {3: 0.75})]
    done.append(trials.finish(first[0], "failed", None, {"told": {}}, {4: 0.0}))
    done.append(trials.finish(first[1], "pruned", None, told, {}))
    trials.store_curves({first[1].key: {2: 9.0}})  # it has ended: nothing is stored
    second = trials.add(2, [new(0.003, 0, (2, 2)), new(0.004, 0, (2, 2))])
    trials.replace_attribute(second[:1], "owner", "")
    second[1].attributes["owner"] = "somebody else"
    trials.replace_attribute(second[1:], "owner", "")  # it is not his any more: nothing is stored
    return done


def frozen(folder: Path) -> list[dict[str, Any]]:
    """What Optuna's own reader finds, without times and ids."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'study.sqlite'}")
    return [
        {
            "number": trial.number, "state": trial.state.name, "values": trial.values, "params": trial.params,
            "distributions": trial.distributions, "attributes": trial.user_attrs, "curve": trial.intermediate_values,
            "begun": trial.datetime_start is not None, "ended": trial.datetime_complete is not None,
        }
        for trial in study.trials
    ]  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dict[type[TrialTable], TrialTable]]:
    """The same study, stored by both."""
    tables = {}
    for kind in KINDS:
        (tmp_path / kind.__name__).mkdir()
        tables[kind] = table(kind, tmp_path / kind.__name__)
    assert [run(trials) for trials in tables.values()] == [[True, False, True]] * 2
    yield tables
    for trials in tables.values():
        trials.storage.engine.dispose()


def test_both_store_what_optuna_reads_alike(
    stored: dict[type[TrialTable], TrialTable], tmp_path: Path
) -> None:
    by_tables, by_api = (frozen(tmp_path / kind.__name__) for kind in KINDS)
    assert by_tables == by_api
    assert [trial["state"] for trial in by_tables] == ["COMPLETE", "PRUNED", "RUNNING", "RUNNING"]
    assert by_tables[0]["curve"] == {1: 0.25, 2: 0.625, 3: 0.75}
    assert [trial["attributes"]["owner"] for trial in by_tables] == ["me", "me", "", "me"]


@pytest.mark.parametrize("writer", KINDS)
def test_each_reads_what_the_other_wrote(
    writer: type[TrialTable], stored: dict[type[TrialTable], TrialTable], tmp_path: Path
) -> None:
    read = [table(kind, tmp_path / writer.__name__).read() for kind in KINDS]
    assert read[0] == read[1]
    assert read[0][0].scores == (0.75, 3.0) and read[0][1].scores is None
    few = [table(kind, tmp_path / writer.__name__).read(2, [0]) for kind in KINDS]
    assert [[trial.number for trial in trials] for trials in few] == [[0, 3]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_silent_once_its_heartbeats_have_stopped(
    kind: type[TrialTable], stored: dict[type[TrialTable], TrialTable]
) -> None:
    trials = stored[kind]
    running = trials.read()[2:]
    trials.beat([trial.key for trial in running])
    assert trials.silent(running, 600.0) == set()
    trials.beat([running[0].key])
    assert trials.silent(running[:1], 600.0) == set()
    while trials.silent(running, 0.0) != {2, 3}:  # until the clock has moved on
        pass


def test_the_tables_are_used_where_optuna_has_them(
    stored: dict[type[TrialTable], TrialTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stored[SqlTrialTable]
    assert isinstance(open_trial_table(known.storage, known.study_id), SqlTrialTable)
    from optuna.storages._rdb import models

    monkeypatch.delattr(models, "TrialHeartbeatModel")
    assert isinstance(open_trial_table(known.storage, known.study_id), ApiTrialTable)


def test_a_study_goes_on_without_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole search in both ways: the same trials, scores and curves."""
    import danlu
    from danlu.search import storage

    recipe = {
        "task": "classification",
        "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"},
        "model": {"name": "mlp", "hidden": [4]},
        "train": {"epochs": 2, "threads": 1},
        "tune": {
            "space": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}},
            "trials": 3,
            "on": "one_by_one",
        },
    }
    by_tables = danlu.tune(recipe, tmp_path / "tables")
    monkeypatch.setattr(storage, "open_trial_table", ApiTrialTable)
    by_api = danlu.tune(recipe, tmp_path / "api")
    assert [(trial.values, trial.scores, trial.curve, trial.state) for trial in by_api.trials] == [
        (trial.values, trial.scores, trial.curve, trial.state) for trial in by_tables.trials
    ]
    assert danlu.tune(recipe, tmp_path / "api").best == by_api.best
