"""A compression that is killed leaves nothing half, and the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import danlu
import make

RECIPE = make.digits(
    data={"split": {"name": "stratified", "validation": 0.1, "test": 0.2}},
    model={"name": "mlp", "hidden": [32]},
    train={"epochs": 1, "batch_size": 32, "threads": 1, "save_every": 5},
)
STEPS = ["--with", "prune:share=0.5,epochs=30", "--with", "int8_static:smallest=1"]


def command(artifact: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "danlu",
        "compress",
        str(artifact),
        *STEPS,
        "--out",
        str(out),
        "--quiet",
    ]


def test_a_killed_compression_leaves_nothing_half_and_goes_on_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    trained = danlu.train(RECIPE, run=tmp_path / "run").path
    assert trained is not None
    environment = {**os.environ, "DANLU_CACHE": str(tmp_path / "cache")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(
        command(trained, whole), env=environment, check=True, capture_output=True, timeout=300
    )

    process = subprocess.Popen(
        command(trained, killed),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = tmp_path / ".killed.compressing" / "training-1" / "checkpoints"
    until = time.monotonic() + 120
    while (
        not any(checkpoints.glob("step-*")) and time.monotonic() < until and process.poll() is None
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert any(checkpoints.glob("step-*"))

    again = subprocess.run(
        command(trained, killed),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert again.returncode == 0, again.stderr
    for name in ("weights.safetensors", "artifact.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not (tmp_path / ".killed.compressing").exists()
