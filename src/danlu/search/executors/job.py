"""A trial as plain data, to be trained in another process: what is given to it, and what it does there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from danlu.search.study import Study, Trial

JOB = "danlu.search.executors.job:carry_out"


class Line(Protocol):
    """The way back to the study."""

    def beat(self) -> None:
        """A sign of life."""
        ...

    def score(self, evaluations: int, value: float) -> bool:
        """Tell a score; whether the trial is to end there."""
        ...


def assignments(study: Study) -> Callable[[Trial], dict[str, Any]]:
    """What a worker is given of a trial of this study."""
    metrics = [metric for metric, _ in study.objectives]

    def assignment(trial: Trial) -> dict[str, Any]:
        # a path of its own: another process may stand elsewhere
        return {
            "recipe": trial.recipe.as_dict(),
            "folder": str(trial.folder.resolve()),
            "metrics": metrics,
            "folds": study.folds,
        }

    return assignment


def carry_out(task: Any, line: Line) -> dict[str, Any]:
    """Train the trial that an assignment speaks of; its Outcome as plain data."""
    from danlu import recipe, registry
    from danlu.search.executors.one_trial import run_trial

    read = recipe.read(task["recipe"], registry)
    return asdict(
        run_trial(read, Path(task["folder"]), task["metrics"], task["folds"], line.score, line.beat)
    )
