"""danlu.tune as a user calls it: the study in SQLite, the best recipe and the report written."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

from measuring import Clock
from searches import Work
from tuners import Tuned

NAME = "danlu"
NEEDS = ("danlu",)
STYLES = {
    "vectorised": "tune.on: vectorised, all trials of a group as one program",
    "auto": "tune.on: auto, danlu's own choice",
    "one_by_one": "tune.on: one_by_one, danlu.train once a trial",
    "processes": "tune.on: processes, a worker a core",
}


def values_of(work: Work) -> list[dict[str, float]]:
    """What everyone tries: the suggestions of danlu's random sampler for the search, by dotted
    name."""
    import danlu
    from danlu.search.study import Study

    recipe = danlu.read_recipe(
        work.search.recipe(work.folder, work.device, "one_by_one", work.search.trials)
    )
    with (
        tempfile.TemporaryDirectory(dir=work.folder) as folder,
        Study(recipe, Path(folder)) as study,
    ):
        return [dict(trial.values) for trial in study.take(work.search.trials)]


def run(work: Work, style: str, values: list[dict[str, float]]) -> Tuned:
    """Tune; see tuners. The clock runs from the call to its return: reading the recipe, the data,
    choosing, training, storing."""
    import danlu

    recipe = work.search.recipe(work.folder, work.device, style, len(values))
    before = _of_children()
    with (
        tempfile.TemporaryDirectory(dir=work.folder) as folder,
        contextlib.redirect_stderr(io.StringIO()),
        Clock() as clock,
    ):
        result = danlu.tune(recipe, Path(folder) / "study", output="lines")
    if [dict(each.values) for each in result.trials] != values:
        raise RuntimeError("danlu tried other values than its sampler suggests")
    cpu = clock.cpu + _of_children() - before
    return Tuned(
        clock.wall, 0.0, cpu, [each.scores[0] if each.scores else None for each in result.trials]
    )


def _of_children() -> float:
    """CPU seconds of processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system
