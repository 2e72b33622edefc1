"""Signals: the first saves the running step, the second ends at once, the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from every_step import steps_of
from hard_recipes import RECIPES
from lives import Life, Lives, differing, fingerprint, write_recipe, writing

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}


def until(condition: Callable[[], object], life: Life) -> None:
    """Wait for a condition; it must come while the process lives."""
    while not condition():
        assert life.poll() is None, f"it ended first, with exit code {life.code}: {life.err}"
        time.sleep(0.0005)


def lines(run: Path) -> int:
    """Lines of timings.jsonl, which grows as long as a process lives (metrics.jsonl is cut back by
    the next one)."""
    path = run / "timings.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.fixture(scope="module")
def long_run(shelf_of_runs: Path, found: Lives) -> tuple[Path, dict[str, str]]:
    """A recipe that trains for some seconds and saves only at its end; the hashes of its unbroken
    run."""
    recipe = RECIPES["tabular"](shelf_of_runs)
    recipe["train"] |= {"steps": 500, "report_every": 1, "evaluate_every": 5, "save_every": 500}
    recipe["data"]["split"] = {
        "name": "random",
        "validation": 0.5,
        "test": 0.2,
    }  # much time goes into evaluation
    path = write_recipe(shelf_of_runs / "long.json", recipe)
    found.run("train", path, "--run", shelf_of_runs / "long")
    return path, fingerprint(shelf_of_runs / "long")


def test_a_signal_saves_the_running_step_and_the_same_command_ends_in_the_same_bytes(
    long_run: tuple[Path, dict[str, str]], tmp_path: Path, found: Lives
) -> None:
    recipe, hashes = long_run
    run, reached = tmp_path / "run", 0
    for number, code in CODES.items():
        before = lines(run)
        life = found.fork("train", recipe, "--run", run)
        until(lambda before=before: lines(run) > before + 20, life)
        life.send(number)
        assert life.wait() == code
        assert (
            life.err.count(number.name) == 1
            and "the state is saved" in life.err
            and "Traceback" not in life.err
        )
        step = steps_of(run)[-1]
        assert f"{number.name} at step {step} of 500" in life.err
        assert reached < step < 500
        reached = step
    last = found.run("train", recipe, "--run", run)
    assert f"resuming at step {reached}" in last.err
    assert differing(hashes, fingerprint(run)) == []


def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_good(
    long_run: tuple[Path, dict[str, str]], tmp_path: Path, found: Lives
) -> None:
    recipe, hashes = long_run
    life = found.fork("train", recipe, "--run", tmp_path / "run")
    until(lambda: lines(tmp_path / "run") > 20, life)
    os.kill(life.pid, signal.SIGSTOP)  # so that both wait for it when it goes on
    life.send(signal.SIGTERM)
    life.send(signal.SIGINT)
    os.kill(life.pid, signal.SIGCONT)
    assert life.wait() in (130, 143)
    assert "stopped at once" in life.err
    assert steps_of(tmp_path / "run") == []
    found.run("train", recipe, "--run", tmp_path / "run")
    assert differing(hashes, fingerprint(tmp_path / "run")) == []


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_before_the_first_step_ends_at_once(
    number: signal.Signals, long_run: tuple[Path, dict[str, str]], tmp_path: Path, found: Lives
) -> None:
    life = found.fork("train", long_run[0], "--run", tmp_path / "run")
    until((tmp_path / "run" / ".held").exists, life)
    life.send(number)
    assert life.wait() == CODES[number]
    assert life.err.count(number.name) == 1 and "Traceback" not in life.err
    assert steps_of(tmp_path / "run") == []
    shorter = found.run("train", long_run[0], "train.steps=5", "--run", tmp_path / "run")
    assert "going on" not in shorter.err, "a folder in which nothing has begun is free"


def test_a_signal_while_the_artifact_is_written_leaves_none_or_a_whole_one(
    long_run: tuple[Path, dict[str, str]], shelf_of_runs: Path, tmp_path: Path, found: Lives
) -> None:
    recipe = write_recipe(tmp_path / "plateau.json", RECIPES["plateau"](tmp_path))
    found.run("train", recipe, "--run", tmp_path / "whole")
    run, codes = tmp_path / "run", set()
    for _ in range(4):
        already = writing(run)
        life = found.fork("train", recipe, "--run", run)
        while life.poll() is None and not any(
            name.startswith(".artifact") for name in writing(run) - already
        ):
            time.sleep(0.0002)
        life.send(signal.SIGTERM)
        codes.add(life.wait())
        assert "Traceback" not in life.err
        assert life.code != 0 or (run / "artifact" / "artifact.json").is_file()
    assert codes <= {0, 143}
    found.run("train", recipe, "--run", run)
    assert differing(fingerprint(tmp_path / "whole"), fingerprint(run)) == []


def test_a_signal_while_the_program_still_loads_is_told_in_one_line(
    found: Lives, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tabular.json", RECIPES["tabular"](tmp_path))
    life = found.fresh("train", recipe, "--run", tmp_path / "run")
    until(
        lambda: b"libtorch_cpu" in Path(f"/proc/{life.pid}/maps").read_bytes(), life
    )  # torch is being imported
    life.send(signal.SIGTERM)
    assert life.wait() in (143, -signal.SIGTERM)
    assert "Traceback" not in life.err
