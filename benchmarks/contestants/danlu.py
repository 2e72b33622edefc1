"""danlu.train as a user calls it: all watchers, about 100 reports, checkpoints written and synced, every gradient looked at for NaN."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from cases import Work
from measuring import Clock, Timing

NAME = "danlu"
NEEDS = ("danlu",)
STYLES = {
    "usual": "danlu.train with its defaults: reports, metrics.jsonl, TensorBoard, checkpoints, NaN checks"
}


def run(work: Work, style: str) -> tuple[Timing, list[Any]]:
    """Train; see contestants. What is timed is the loop, until its last checkpoint is on the
    disk."""
    import danlu
    from danlu.training import loop as training

    timings: list[Timing] = []

    class Timed(training.Training):
        def loop(self, n: int) -> None:
            with Clock() as clock:
                super().loop(n)
                self.checkpoints.wait()
            timings.append(clock.timing(self.plan.total_steps))

    with (
        tempfile.TemporaryDirectory(dir=work.folder) as folder,
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(training, "Training", Timed),
    ):
        artifact = danlu.train(work.recipe, Path(folder) / "run", output="lines")
        return timings[0], [parameter.detach() for parameter in artifact.module.parameters()]
