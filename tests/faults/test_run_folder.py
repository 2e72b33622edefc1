"""Whose run folder it is, and what is refused: another recipe, other data, another process, what was cut or edited by hand."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from every_step import cut_back, steps_of
from flips import damaged
from hard_recipes import RECIPES, write_table
from lives import Lives, differing, fingerprint, last_checkpoint, write_recipe
from test_signals import until

from leftovers import left_by_a_killed_writer


@pytest.fixture(scope="module")
def whole(shelf_of_runs: Path, found: Lives) -> tuple[Path, Path]:
    """(recipe, finished run) of 12 steps, a checkpoint after each, the last two kept."""
    home = shelf_of_runs / "folders"
    home.mkdir()
    recipe = RECIPES["tabular"](home)
    recipe["train"] |= {"steps": 12, "report_every": 1, "keep": 3}
    path = write_recipe(home / "tabular.json", recipe)
    found.run("train", path, "--run", home / "run")
    return path, home / "run"


@pytest.fixture
def unfinished(whole: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of that run as a kill after step 11 would have left it."""
    cut_back(whole[1], 11, tmp_path / "run")
    return tmp_path / "run"


def message(error: str) -> list[str]:
    """The lines of an error, which must be few and no traceback."""
    assert "Traceback" not in error
    return error.splitlines()


def test_a_finished_run_says_so_and_changes_nothing(whole: tuple[Path, Path], found: Lives) -> None:
    recipe, run = whole
    before = fingerprint(run)
    again = found.run("train", recipe, "--run", run)
    assert "has finished already" in again.err
    assert "test scores" in again.out
    assert fingerprint(run) == before
    assert (
        json.loads(found.run("train", recipe, "--run", run, "--json").out)["finished_before"]
        is True
    )


def test_another_recipe_is_refused_with_the_difference(
    whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    for run in (whole[1], unfinished):
        refused = found.run(
            "train", whole[0], "train.seed=6", "optimizer.learning_rate=0.02", "--run", run, code=2
        )
        lines = message(refused.err)
        assert any("train.seed" in line and "5" in line and "6" in line for line in lines), lines
        assert any(
            "optimizer.learning_rate" in line and "0.01" in line and "0.02" in line
            for line in lines
        ), lines


def test_what_does_not_change_the_result_may_change(
    whole: tuple[Path, Path], unfinished: Path, found: Lives, tmp_path: Path
) -> None:
    other = json.loads(whole[0].read_text())
    other["train"]["keep"] = 1
    other["watchers"] = ["console", "jsonl"]
    found.run("train", write_recipe(tmp_path / "other_name.json", other), "--run", unfinished)
    names = ("artifact/weights.safetensors", "metrics.jsonl")
    assert [fingerprint(unfinished)[name] for name in names] == [
        fingerprint(whole[1])[name] for name in names
    ]
    assert "keep: 1\n" in (unfinished / "recipe.lock.yaml").read_text(), (
        "the lock file says what was asked last"
    )


def test_changed_data_is_refused(
    whole: tuple[Path, Path], unfinished: Path, found: Lives, tmp_path: Path
) -> None:
    changed = json.loads(whole[0].read_text())
    changed["data"]["source"] = str(write_table(tmp_path / "tabular.csv", rows=421))
    refused = found.run(
        "train", write_recipe(tmp_path / "changed.json", changed), "--run", unfinished, code=2
    )
    assert "tabular.csv has changed since this run began" in refused.err


def test_a_second_process_is_refused_while_the_first_trains(
    whole: tuple[Path, Path], found: Lives, tmp_path: Path
) -> None:
    first = found.fork("train", whole[0], "--run", tmp_path / "run", "train.steps=3000")
    until(lambda: steps_of(tmp_path / "run"), first)
    second = found.run("train", whole[0], "--run", tmp_path / "run", "train.steps=3000", code=2)
    assert "another process is training in this run folder" in second.err
    assert first.poll() is None
    first.send(9)
    first.wait()


@pytest.mark.parametrize("how", ["cut", "edited", "gone"])
def test_a_metric_log_changed_by_hand_is_refused(
    how: str, whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    log = unfinished / "metrics.jsonl"
    data = log.read_bytes()
    if how == "gone":
        log.unlink()
    else:
        log.write_bytes(data[:100] if how == "cut" else data.replace(b"train", b"TRAIN", 1))
    refused = found.run("train", whole[0], "--run", unfinished, code=2)
    assert "metrics.jsonl was cut or edited" in refused.err and str(log) in refused.err
    assert len(message(refused.err)) < 12
    log.write_bytes(data)
    found.run("train", whole[0], "--run", unfinished)
    assert differing(fingerprint(whole[1]), fingerprint(unfinished)) == []


def test_a_damaged_lock_file_is_refused(
    whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    lock, draw = unfinished / "recipe.lock.yaml", random.Random(0)
    data = lock.read_bytes()
    for trial in range(12):
        lock.write_bytes(damaged(data, draw, cut=trial % 3 == 0))
        refused = found.run("train", whole[0], "--run", unfinished, code=2)
        assert "the lock file cannot be used" in refused.err and str(lock) in refused.err
        assert len(message(refused.err)) == 2
    lock.unlink()
    assert "without a lock file" in found.run("train", whole[0], "--run", unfinished, code=2).err
    assert len(steps_of(unfinished)) > 0, "nothing is thrown away"


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    newest = last_checkpoint(unfinished) / "state.safetensors"
    newest.write_bytes(damaged(newest.read_bytes(), random.Random(1), cut=False))
    life = found.run("train", whole[0], "--run", unfinished)
    assert "resuming at step 10" in life.err
    assert sum(str(newest) in line and "damaged" in line for line in life.err.splitlines()) == 1
    assert differing(fingerprint(whole[1]), fingerprint(unfinished)) == []


def test_no_good_checkpoint_is_exit_code_4_and_what_to_do(
    whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    for path in unfinished.glob("checkpoints/step-*/checkpoint.json"):
        path.write_bytes(path.read_bytes()[:-1])
    refused = found.run("train", whole[0], "--run", unfinished, code=4)
    assert (
        "no checkpoint of this run is usable" in refused.err
        and "hint: remove the checkpoints folder" in refused.err
    )
    shutil.rmtree(unfinished / "checkpoints")
    found.run("train", whole[0], "--run", unfinished)
    assert differing(fingerprint(whole[1]), fingerprint(unfinished)) == []


def test_foreign_files_beside_the_checkpoints_do_no_harm(
    whole: tuple[Path, Path], unfinished: Path, found: Lives
) -> None:
    checkpoints = unfinished / "checkpoints"
    (checkpoints / "notes.txt").write_text("mine")
    (checkpoints / "step-7").mkdir()
    (checkpoints / "step-0000000099").mkdir()
    (checkpoints / "step-0000000098").write_text("a file where a folder should be")
    (checkpoints / ".step-0000000005.0123abcd.writing").mkdir()
    life = found.run("train", whole[0], "--run", unfinished)
    assert "resuming at step 11" in life.err
    assert (checkpoints / "notes.txt").read_text() == "mine" and (checkpoints / "step-7").is_dir()
    wanted, got = fingerprint(whole[1]), fingerprint(unfinished)
    assert differing(wanted, got) == []


def test_a_kill_between_the_first_folder_and_the_lock_file_bars_nothing(
    whole: tuple[Path, Path], found: Lives, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / ".held").touch()
    left = left_by_a_killed_writer(run / "recipe.lock.yaml")
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    found.run("train", whole[0], "--run", run)
    assert differing(fingerprint(whole[1]), fingerprint(run)) == []
    assert not left.exists()


def test_a_damaged_artifact_is_refused_by_every_verb_that_reads_it(
    whole: tuple[Path, Path], found: Lives, tmp_path: Path
) -> None:
    data, draw = json.loads(whole[0].read_text())["data"]["source"], random.Random(2)
    for file in (
        "artifact.json",
        "weights.safetensors",
        "preprocessing.safetensors",
        "recipe.lock.yaml",
    ):
        run = tmp_path / file
        shutil.copytree(whole[1], run)
        path = run / "artifact" / file
        path.write_bytes(damaged(path.read_bytes(), draw, cut=file == "artifact.json"))
        for command in (
            ("predict", run, data),
            ("evaluate", run),
            ("train", whole[0], "--run", run),
        ):
            refused = found.run(*command, code=4)
            assert str(path) in refused.err and refused.out == ""
            assert len(message(refused.err)) <= 2, refused.err


def test_the_number_of_threads_is_recorded_and_kept(found: Lives, tmp_path: Path) -> None:
    """Enough work a step that two threads are worth it, where there are two cores: the lock file
    must say one, and so must the next life."""
    recipe = RECIPES["images"](tmp_path)
    recipe["model"] |= {"width": 24, "blocks": [1, 1]}
    recipe["train"] |= {
        "steps": 3,
        "batch_size": 64,
        "micro_batch": None,
        "evaluate_every": 3,
        "keep": 9,
    }
    del recipe["train"]["threads"]
    path = write_recipe(tmp_path / "recipe.json", recipe)
    found.run("train", path, "--run", tmp_path / "whole", cores=[0])
    cut_back(tmp_path / "whole", 1, tmp_path / "run")
    life = found.run("train", path, "--run", tmp_path / "run")
    assert "threads 1" in life.err
    assert differing(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run")) == []
