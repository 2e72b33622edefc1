"""A training is cut off, and goes on: as a user types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RECIPE = """
task: classification
data: {source: {name: sklearn, set: digits}, target: label}
model: {name: mlp, hidden: [64]}
regularization: {ema_decay: 0.99}
train: {steps: 600, save_every: 25, evaluate_every: 100, threads: 1}
"""
DANLU = [sys.executable, "-m", "danlu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("resume")
    (home / "digits.yaml").write_text(RECIPE)
    return home


def circumstances(folder: Path) -> dict[str, Any]:
    return {
        "cwd": folder,
        "text": True,
        "env": {**os.environ, "DANLU_CACHE": str(folder / "cache")},
    }


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DANLU, *words], capture_output=True, timeout=240, check=False, **circumstances(folder)
    )


def test_an_interrupted_training_goes_on_by_the_same_command_and_a_finished_one_says_so(
    folder: Path,
) -> None:
    command = ("train", "digits.yaml")
    with subprocess.Popen(
        [*DANLU, *command], stderr=subprocess.PIPE, **circumstances(folder)
    ) as process:
        checkpoints = folder / "runs" / "digits" / "checkpoints"
        while process.poll() is None and not any(checkpoints.glob("step-*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 143, said
    told = re.search(
        r"SIGTERM at step ([\d,]+) of 600: the state is saved\.\nhint: run the same command again",
        said,
    )
    assert told, said
    on = typed(folder, *command)
    assert on.returncode == 0, on.stderr
    assert f"resuming at step {told[1]}" in on.stderr
    assert "test scores" in on.stdout
    steps = [
        json.loads(line)["step"]
        for line in (folder / "runs" / "digits" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps) and steps[-1] == 600
    finished = typed(folder, *command)
    assert (finished.returncode, finished.stdout) == (0, on.stdout)
    assert "has finished already" in finished.stderr
    other = typed(folder, *command, "train.seed=1")
    assert (other.returncode, other.stdout) == (2, "")
    assert "train.seed" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX systems")
def test_verify_resume_proves_it_on_the_users_own_recipe(folder: Path) -> None:
    ended = typed(
        folder, "verify-resume", "digits.yaml", "train.steps=200", "--kills", "1", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["equal"] is True and found["kills"] == 1 and found["runs"] >= 1
    assert {"metrics.jsonl", "artifact/weights.safetensors"} <= found["hashes"].keys()
    assert "kill 1 of 1" in ended.stderr
