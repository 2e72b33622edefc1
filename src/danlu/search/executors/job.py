"""A trial as plain data: what a worker gets of it, and the job that a worker runs with that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from danlu.search.study import Study, Trial

JOB = "danlu.search.executors.job:run_job"


class StudyConnection(Protocol):
    """What a job can tell the study that runs it."""

    def beat(self) -> None:
        """Send a heartbeat: the job is alive."""
        ...

    def score(self, evaluations: int, value: float) -> bool:
        """Send the score of evaluation number `evaluations` (1, 2, ...) and wait for the answer:
        whether the trial shall end there."""
        ...


def job_payloads(study: Study) -> Callable[[Trial], dict[str, Any]]:
    """A function that gives, for a trial of this study, the payload of its job."""
    metrics = [metric for metric, _ in study.objectives]

    def payload(trial: Trial) -> dict[str, Any]:
        return {
            "recipe": trial.recipe.as_dict(),
            "folder": str(trial.folder.resolve()),  # the worker may have another working directory
            "metrics": metrics,
            "folds": study.folds,
        }

    return payload


def run_job(payload: Mapping[str, Any], connection: StudyConnection) -> dict[str, Any]:
    """Train the trial of a payload; its Outcome as plain data."""
    from danlu import recipe, registry
    from danlu.search.executors.one_trial import run_trial

    trial_recipe = recipe.read(payload["recipe"], registry)
    folder = Path(payload["folder"])
    outcome = run_trial(
        trial_recipe,
        folder,
        payload["metrics"],
        payload["folds"],
        connection.score,
        connection.beat,
    )
    return asdict(outcome)
