"""A study in a PostgreSQL or MySQL server, shared by processes that know nothing of each other but the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import make

pytest.importorskip("optuna")
pytest.importorskip("psycopg")
pytest.importorskip("pymysql")

import mariadb
import postgresql

import danlu
from danlu.data.dataset import keep_in_memory
from danlu.search import storage
from danlu.search.study import Study
from danlu.system.trust import allow_remote

SERVERS = [
    pytest.param(
        each.server,
        id=each.__name__,
        marks=pytest.mark.skipif(
            not each.programs(), reason=f"needs the Debian package {each.PACKAGE}"
        ),
    )
    for each in (postgresql, mariadb)
]
every_server = pytest.mark.parametrize("server", SERVERS)


def wait(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Wait for a condition; the bound is there against hanging only."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def recipe(url: str, **tune: Any) -> danlu.Recipe:
    return danlu.read_recipe(
        make.iris(
            tune={
                "space": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1}},
                "storage": url,
                **tune,
            }
        )
    )


@every_server
def test_studies_on_several_machines_end_exactly_as_many_trials_as_asked_for(
    server: Any, tmp_path: Path
) -> None:
    with server() as url, keep_in_memory(), allow_remote():
        about = recipe(url, trials=30, pruner="median")
        studies = [Study(about, tmp_path / f"machine-{number}" / "study") for number in range(4)]
        told: list[int] = []

        def work(study: Study, count: int) -> None:
            while trials := study.take(count):
                for trial in trials:
                    study.report(trial, 1, trial.values["optimizer.learning_rate"])
                    study.should_prune(trial)
                    study.tell(trial, [trial.values["optimizer.learning_rate"]], "complete")
                    told.append(trial.number)

        threads = [
            threading.Thread(target=work, args=(study, 1 + number % 3))
            for number, study in enumerate(studies)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == list(range(30))
        assert [record.state for record in studies[0].trials()] == ["complete"] * 30
        for study in studies:
            study.close()


@every_server
def test_the_trials_of_a_machine_without_a_sign_of_life_are_taken_up_elsewhere(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 0.3)
    with server() as url, keep_in_memory(), allow_remote():
        about = recipe(url, trials=3)
        gone = Study(about, tmp_path / "gone" / "study")
        begun = gone.take(2)
        with Study(about, tmp_path / "here" / "study") as here:
            assert [trial.number for trial in here.take(1)] == [2]
            assert here.take(2) == []
            stored = gone.storage.read(numbers=[0, 1])[:2]
            monkeypatch.setattr(storage, "GRACE", 1)
            time.sleep(3)  # so that its first heartbeat is too old
            wait(lambda: not here.storage.silent(stored))  # it lives, and says so
            monkeypatch.setattr(storage, "GRACE", 600)
            assert here.take(2) == []
            assert gone.storage.heartbeat is not None
            gone.storage.heartbeat.stop()
            monkeypatch.setattr(storage, "GRACE", 1)
            wait(lambda: here.storage.silent(stored) == {0, 1})
            taken = here.take(2)
            assert [(trial.number, trial.values) for trial in taken] == [
                (trial.number, trial.values) for trial in begun
            ]
            for trial in taken:
                here.tell(trial, [0.5], "complete")
            gone.tell(begun[0], [0.75], "complete")  # it was only asleep: what was told first stays
            assert [record.scores for record in here.trials()[:2]] == [(0.5,), (0.5,)]
        gone.close()
