"""A full disk, a folder that cannot be written: one message, the right exit code, nothing lost."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from every_step import steps_of
from hard_recipes import RECIPES
from lives import Lives, differing, fingerprint, last_checkpoint, write_recipe
from test_signals import lines, until


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own with little room; skips the test where that is not permitted."""
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("a file system cannot be mounted here (no permission)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def recipe_of(folder: Path, **train: Any) -> Path:
    recipe = RECIPES["tabular"](folder)
    recipe["train"] |= train
    recipe["data"]["cache"] = False
    return write_recipe(folder / "recipe.json", recipe)


def test_a_disk_that_fills_up_in_mid_run_costs_nothing_but_the_message(
    tmp_path: Path, found: Lives
) -> None:
    recipe = recipe_of(tmp_path, steps=400, save_every=2)
    found.run("train", recipe, "--run", tmp_path / "whole")
    with mounted(tmp_path / "small", "4m") as disk:
        run = disk / "run"
        life = found.fork("train", recipe, "--run", run)
        until(lambda: lines(run) > 10, life)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert life.wait() == 4
        assert life.err.count("No space left on device") == 1, life.err
        assert "run the same command again" in life.err and "Traceback" not in life.err
        assert 0 < steps_of(run)[-1] < 400
        (disk / "filler").unlink()
        again = found.run("train", recipe, "--run", run)
        assert "resuming at step" in again.err and "damaged" not in again.err
        assert differing(fingerprint(tmp_path / "whole"), fingerprint(run)) == []


def test_a_checkpoint_larger_than_the_system_allows_is_told_and_the_run_goes_on_later(
    tmp_path: Path, found: Lives
) -> None:
    recipe = recipe_of(tmp_path, steps=30, save_every=5)
    found.run("train", recipe, "--run", tmp_path / "whole")
    size = (last_checkpoint(tmp_path / "whole") / "state.safetensors").stat().st_size
    stopped = found.run(
        "train", recipe, "--run", tmp_path / "run", code=4, limits={"RLIMIT_FSIZE": size - 1000}
    )
    assert "File too large" in stopped.err
    found.run("train", recipe, "--run", tmp_path / "run")
    assert differing(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run")) == []


def test_a_metric_log_that_takes_no_more_is_told_and_no_half_line_survives(
    tmp_path: Path, found: Lives
) -> None:
    small = RECIPES["tabular"](tmp_path)
    small |= {"model": "linear", "optimizer": "sgd", "regularization": {}}
    small["train"] |= {"steps": 120, "save_every": 4, "report_every": 1, "evaluate_every": 40}
    recipe = write_recipe(tmp_path / "small.json", small)
    found.run("train", recipe, "--run", tmp_path / "whole")
    log = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    state = sum(path.stat().st_size for path in last_checkpoint(tmp_path / "whole").iterdir())
    assert log > state + 4000, "else the limit would hit a checkpoint first"
    limit = (log + state) // 2 + 7  # in the middle of a line
    stopped = found.run(
        "train", recipe, "--run", tmp_path / "run", code=4, limits={"RLIMIT_FSIZE": limit}
    )
    assert "could not be written: File too large" in stopped.err
    found.run("train", recipe, "--run", tmp_path / "run")
    assert differing(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run")) == []
    assert all(
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    )


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path, found: Lives) -> None:
    recipe = recipe_of(tmp_path)
    with mounted(tmp_path / "small", "96k") as disk:
        (disk / "filler").write_bytes(bytes(48 << 10))
        refused = found.run("train", recipe, "--run", disk / "run", code=2)
        assert "free" in refused.err and "step" not in refused.err
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        found.run("train", recipe, "--run", disk / "run")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    tmp_path: Path, found: Lives
) -> None:
    recipe = recipe_of(tmp_path)
    (tmp_path / "file").write_text("in the way")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        refused = found.run("train", recipe, "--run", run, code=2)
        assert "cannot be written" in refused.err and str(run) in refused.err
        assert len(refused.err.splitlines()) == 2, refused.err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    refused = found.run("train", recipe, "--run", tmp_path / "run", code=2)
    assert "checkpoints: danlu did not write this, and would replace it" in refused.err


def test_a_disk_that_is_read_only_is_refused_before_the_first_step(
    tmp_path: Path, found: Lives
) -> None:
    recipe = recipe_of(tmp_path)
    with mounted(tmp_path / "small", "8m") as disk:
        (disk / "run").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for run in (disk / "run", disk / "new"):
            refused = found.run("train", recipe, "--run", run, code=2)
            assert "Read-only file system" in refused.err and len(refused.err.splitlines()) == 2, (
                refused.err
            )


def test_a_terminal_that_goes_away_does_not_stop_training(tmp_path: Path, found: Lives) -> None:
    recipe = recipe_of(tmp_path)
    found.run("train", recipe, "--run", tmp_path / "whole")
    life = found.fork("train", recipe, "--run", tmp_path / "run", stderr="/dev/full")
    assert life.wait() == 0
    assert differing(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "run")) == []
