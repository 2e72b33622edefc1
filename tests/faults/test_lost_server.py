"""A PostgreSQL server that is lost while a study runs: the study waits for it, and the same command ends with exactly as many trials as asked for."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import make

pytest.importorskip("optuna")
pytest.importorskip("psycopg")

import postgresql
from lives import Lives, write_recipe

import danlu
from danlu.data.dataset import keep_in_memory
from danlu.errors import RunError
from danlu.search.study import Study, Trial
from danlu.system.trust import allow_remote

pytestmark = pytest.mark.skipif(
    not postgresql.programs(), reason=f"needs the Debian package {postgresql.PACKAGE}"
)


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.restartable() as started:
        yield started


@pytest.fixture(autouse=True)
def permitted() -> Iterator[None]:
    with allow_remote(), keep_in_memory():
        yield


def search(url: str, trials: int, **train: Any) -> dict[str, Any]:
    space = {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1}}
    tune = {"space": space, "storage": url, "trials": trials, "sampler": "random"}
    return make.iris(train={"steps": 2, "threads": 1, **train}, tune={**tune, "on": "one_by_one"})


def end(study: Study, trial: Trial) -> None:
    study.report(trial, 1, 0.25)
    study.tell(trial, [trial.values["optimizer.learning_rate"]], "complete")


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "restart"])
def test_a_study_waits_for_its_server_wherever_it_is_lost(
    number: int, server: postgresql.Server, tmp_path: Path
) -> None:
    with Study(danlu.read_recipe(search(server.url, 2)), tmp_path / f"waits-{number}") as study:
        told = []
        for step in range(2):
            lose(server, number)
            (trial,) = study.take()
            if step % 2:
                lose(server, number)
            end(study, trial)
            told.append(trial.number)
        assert study.take() == []
        assert told == [0, 1]
        assert [record.state for record in study.trials()] == ["complete"] * 2


def lose(server: postgresql.Server, number: int) -> None:
    """End the server, and start it again a moment later."""
    server.stop(number)
    threading.Timer(0.5, server.start).start()


def test_a_commit_whose_answer_is_lost_is_not_done_twice(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy.exc

    about = danlu.read_recipe(search(server.url, 3))
    with Study(about, tmp_path / "twice") as study:
        engine = study.storage.optuna_storage.engine
        commit, lost = engine.dialect.do_commit, [0]

        def commit_and_lose(connection: Any) -> None:
            commit(connection)
            if lost[0] < 12 and threading.current_thread() is threading.main_thread():
                lost[0] += 1
                if lost[0] % 2:  # it is stored, and the client never learns of it
                    raise sqlalchemy.exc.OperationalError("COMMIT", {}, OSError("lost"))

        monkeypatch.setattr(engine.dialect, "do_commit", commit_and_lose)
        while trials := study.take():
            end(study, trials[0])
        assert [record.number for record in study.trials()] == [0, 1, 2]
        assert {record.state for record in study.trials()} == {"complete"}
    assert lost[0] == 12


def test_where_the_server_stays_away_the_study_ends_and_goes_on_later(
    server: postgresql.Server, tmp_path: Path
) -> None:
    about = danlu.read_recipe(search(server.url, 3))
    with Study(about, tmp_path / "later") as study:
        (first,) = study.take()
        study.storage.patience = 0.3
        server.stop()
        with pytest.raises(RunError, match="cannot be used"):
            end(study, first)
    server.start()
    with Study(about, tmp_path / "later") as study:
        (again,) = study.take()  # at once: its lease shows that its process is gone
        assert again == first
        end(study, again)
        while trials := study.take():
            end(study, trials[0])
        assert [record.state for record in study.trials()] == ["complete"] * 3


def test_the_command_ends_with_all_trials_though_its_server_is_restarted(
    server: postgresql.Server, tmp_path: Path, found: Lives
) -> None:
    recipe = write_recipe(tmp_path / "r.json", search(server.url, 6, steps=60))
    study = tmp_path / "command"
    life = found.fork("tune", recipe, "--study", study, "--allow-remote", "--json")
    for trial in (1, 3):
        bound = time.monotonic() + 120
        while not (study / "trials" / f"{trial:04d}").exists():
            assert life.poll() is None and time.monotonic() < bound, life.err
            time.sleep(0.01)
        server.stop()
        server.start()
    assert life.wait(120) == 0, life.err
    assert "Traceback" not in life.err
    assert json.loads(life.out)["states"] == {
        "complete": 6, "pruned": 0, "failed": 0, "running": 0
    }  # fmt: skip


def test_a_command_waits_for_what_another_process_runs_and_does_what_it_lost(
    server: postgresql.Server, tmp_path: Path, found: Lives
) -> None:
    recipe = write_recipe(tmp_path / "r.json", search(server.url, 3))
    with Study(danlu.read_recipe(recipe), tmp_path / "both") as other:
        taken = other.take(2)
        life = found.fork("tune", recipe, "--study", tmp_path / "both", "--allow-remote")
        bound = time.monotonic() + 120
        while "waiting for 2 trial(s)" not in life.err:
            assert life.poll() is None and time.monotonic() < bound, life.err
            time.sleep(0.05)
        end(other, taken[0])
    assert life.wait(120) == 0, life.err
    assert "3 trials: 3 complete" in life.out
