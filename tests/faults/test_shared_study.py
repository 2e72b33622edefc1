"""Eight processes share one study in a real PostgreSQL by its URL, and some are killed -9 in between."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lives import Life, Lives
from postgresql import PACKAGE, programs, server
from worker_kills import outcome, recipe_of

WORKERS, TRIALS, KILLS = 8, 24, 5


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a PostgreSQL of this module's own."""
    pytest.importorskip("psycopg", reason="pip install 'danlu[databases]'")
    if programs() is None:
        pytest.skip(f"there is no PostgreSQL; install the Debian package {PACKAGE}")
    with server() as url:
        yield url


def test_eight_processes_finish_exactly_the_trials_though_some_are_killed(database: str, tmp_path: Path, found: Lives) -> None:
    recipe = recipe_of(tmp_path, trials=TRIALS, steps=40, on="one_by_one", workers=None, storage=database)
    study, draw = tmp_path / "study", random.Random(8)

    def begin() -> Life:
        return found.fork("tune", recipe, "--study", study, "--json")

    team, killed = [begin() for _ in range(WORKERS)], 0
    end = time.monotonic() + 240
    while any(life.poll() is None for life in team):
        assert time.monotonic() < end, [life.err for life in team]
        time.sleep(draw.uniform(0.1, 0.4))
        at_work = [number for number, life in enumerate(team) if life.poll() is None]
        if killed < KILLS and at_work and any(study.glob("trials/*")):
            number = draw.choice(at_work)
            team[number].send(signal.SIGKILL)
            if team[number].wait() == -signal.SIGKILL:
                killed += 1
                team[number] = begin()  # the same command, as whoever watches over a process does
    for life in team:
        assert life.code == 0 and "Traceback" not in life.err, life.err
    assert killed == KILLS
    last = found.run("tune", recipe, "--study", study, "--json")  # what a process left that died last
    told = outcome(last.out)
    assert told["states"] == {"complete": TRIALS, "pruned": 0, "failed": 0, "running": 0}
    assert [trial["number"] for trial in told["trials"]] == list(range(TRIALS))
    assert all(trial["steps"] == 40 and len(trial["curve"]) == 4 for trial in told["trials"])
    values = [tuple(trial["values"].values()) for trial in told["trials"]]
    assert len(set(values)) == TRIALS, "a suggestion was made twice"
    assert stored(database) == [(number, "COMPLETE") for number in range(TRIALS)], "what other tools of Optuna read"


def test_a_database_that_cannot_be_reached_is_one_message(tmp_path: Path, found: Lives) -> None:
    pytest.importorskip("psycopg", reason="pip install 'danlu[databases]'")
    recipe = recipe_of(tmp_path, trials=2, storage="postgresql://somebody:secret@127.0.0.1:1/none")
    life = found.run("tune", recipe, "--study", tmp_path / "study", code=2)
    assert "the study's storage cannot be used" in life.err and "secret" not in life.err


def stored(database: str) -> list[tuple[int, str]]:
    """(number, state) of every trial in the database, by number."""
    import psycopg

    with psycopg.connect(database) as connection:
        return [(number, state) for number, state in connection.execute("SELECT number, state FROM trials ORDER BY number")]
