"""danlu compare, killed by kill -9 in the middle of trainings and between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def test_a_comparison_killed_again_and_again_ends_as_one_never_killed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    lines = [
        "a,b,c,y",
        *(f"{a:.4f},{b:.4f},{c:.4f},{a - 2 * b + 0.1 * rng.normal():.4f}" for a, b, c in x),
    ]
    (tmp_path / "line.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "line.yaml").write_text(
        "task: regression\ndata: {source: line.csv, target: y, split: {name: random, validation: 0.2, test: 0.1}}\n"
        "model: linear\ntrain: {steps: 60, batch_size: 16}\n"
    )
    command = [
        sys.executable,
        "-m",
        "danlu",
        "compare",
        "line.yaml",
        "optimizer=sgd,adam",
        "--rates",
        "3",
        "--seeds",
        "2",
    ]
    command += ["--on", "one_by_one", "--metric", "rmse", "--quiet", "--run"]
    about = {
        "cwd": tmp_path,
        "env": {**os.environ, "DANLU_CACHE": str(tmp_path / "cache")},
        "stdout": subprocess.DEVNULL,
    }
    subprocess.run([*command, "whole"], check=True, **about)  # type: ignore[call-overload]
    deaths = 0
    for kept in (1, 4, 7):
        process = subprocess.Popen([*command, "killed"], **about)  # type: ignore[call-overload]
        while (
            process.poll() is None
            and len(list((tmp_path / "killed" / "results").glob("*.json"))) < kept
        ):
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.2)))  # into the next training
        process.send_signal(signal.SIGKILL)
        deaths += process.wait() == -signal.SIGKILL
    assert deaths >= 2  # the last may come too late
    subprocess.run([*command, "killed"], check=True, **about)  # type: ignore[call-overload]
    for name in ("curves.csv", "curves.svg", "losses.svg", "rates.svg"):
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "killed" / name
        ).read_bytes(), name
