"""Train one trial in its folder as `danlu train` does, report its scores, and say how it ended."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from danlu import registry
from danlu.artifact.prediction import load
from danlu.errors import Interrupted, RunError
from danlu.parts.watchers._base import Watcher
from danlu.recipe import Part, Recipe
from danlu.search.executors.failure import describe_failure
from danlu.terms import TrainingEvent
from danlu.training.cross_validation import cross_validate
from danlu.training.loop import train

EndState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: the arguments of `Study.tell`, as plain data that can cross processes.

    `values` has one value per objective, in the study's order; None unless the trial is complete.
    `facts` holds what else was measured: scores by name, steps, seconds, parameters. `kind` is the
    kind of failure (danlu.search.executors.failure); "" where the trial did not fail.

    >>> Outcome("pruned", cause="worse than the other trials").values is None
    True
    """

    state: EndState
    values: list[float] | None = None
    cause: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


def run_trial(
    recipe: Recipe,
    folder: Path,
    metrics: Sequence[str],
    folds: int | None,
    report: Callable[[int, float], bool],
    beat: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train a trial's recipe in its folder, resuming what a killed process left there.

    `metrics` names the objectives (validation scores, loss, seconds, parameters).
    `report(evaluations, value)` receives the first objective after each evaluation and the number
    of evaluations so far; it returns whether the trial shall end there. `beat()` is called at
    every event of the training, as a heartbeat. A failure of the trial (an exception, NaN, no
    memory) becomes an Outcome with its cause. Raises Interrupted and KeyboardInterrupt.
    """
    started_at = time.monotonic()
    watched = dataclasses.replace(recipe, watchers=_watchers())
    try:
        if folds:
            return _cross_validate(watched, folder, metrics, folds, report, beat, started_at)
        reporter = ScoreReporter(metrics[0], report, beat)
        artifact = train(watched, folder, beside=reporter)
        if not reporter.curve:  # finished in an earlier process, killed before the study knew it
            reporter.report_log(folder)
        scores, provenance = artifact.scores["validation"], artifact.provenance
        facts = {
            "scores": {
                name: value
                for name, value in scores.items()
                if isinstance(value, int | float) and name != "rows"
            },
            "seconds": reporter.seconds + time.monotonic() - started_at,
            "steps": provenance["step"],
            "best_step": provenance["best_step"],
            "parameters": provenance["parameters"],
        }
        return Outcome("complete", _values(metrics, facts), facts=facts)
    except Pruned as pruned:
        facts = {"seconds": pruned.seconds + time.monotonic() - started_at, "steps": pruned.step}
        return Outcome("pruned", cause=str(pruned), facts=facts)
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:
        failure = describe_failure(error)
        return Outcome(
            "failed",
            cause=failure.message,
            facts={"seconds": time.monotonic() - started_at},
            kind=failure.kind,
        )


def _cross_validate(
    recipe: Recipe,
    folder: Path,
    metrics: Sequence[str],
    folds: int,
    report: Callable[[int, float], bool],
    beat: Callable[[], None],
    started_at: float,
) -> Outcome:
    """Train one model per fold; after each fold report the mean score of the folds so far."""
    parameters = steps = 0

    def after_fold(scores: list[dict[str, Any]]) -> None:
        nonlocal parameters, steps
        provenance = load(folder / f"fold-{len(scores)}-of-{folds}").provenance
        parameters, steps = provenance["parameters"], steps + provenance["step"]
        values = [of_fold[metrics[0]] for of_fold in scores if metrics[0] in of_fold]
        if (
            len(values) == len(scores)
            and report(len(scores), statistics.fmean(values))
            and len(scores) < folds
        ):
            raise Pruned(f"behind the others after {len(scores)} of {folds} folds", steps)

    summary = cross_validate(
        recipe, folds, folder, beside=lambda: ScoreReporter("", report, beat), after=after_fold
    )
    facts = {
        "scores": summary["mean"],
        "std": summary["std"],
        "folds": summary["folds"],
        "seconds": time.monotonic() - started_at,
        "steps": steps,
        "parameters": parameters,
    }
    return Outcome("complete", _values(metrics, facts), facts=facts)


def _values(metrics: Sequence[str], facts: Mapping[str, Any]) -> list[float]:
    """One value per objective, from what was measured. Raises RunError for a missing score."""
    measured = {**facts["scores"], "seconds": facts["seconds"], "parameters": facts["parameters"]}
    missing = [metric for metric in metrics if metric not in measured]
    if missing:
        raise RunError(
            f"there is no score {missing[0]} on these rows; there are {', '.join(measured)}."
        )
    return [float(measured[metric]) for metric in metrics]


class Pruned(Exception):
    """Ends the training of a trial that is worse than the others."""

    def __init__(self, message: str, step: int, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.step = step
        self.seconds = seconds  # spent by earlier processes


class ScoreReporter(Watcher):
    """Reports the score `metric` after each evaluation ("": no score) and prunes the training where
    the answer is True.

    The scores are kept in checkpoints. A resumed training reports them again, since the study may
    have been killed before it stored them.
    """

    def __init__(
        self, metric: str, report: Callable[[int, float], bool], beat: Callable[[], None]
    ) -> None:
        self.metric = metric
        self.report = report
        self.beat = beat
        self.curve: list[float] = []
        self.seconds = 0.0  # spent by earlier processes
        self.started_at = time.monotonic()

    def hear(self, report: TrainingEvent) -> None:
        """Report the score of a validation event. Raises Pruned where the trial shall end."""
        self.beat()
        if report.kind == "validation" and self._report(report.values):
            raise Pruned(
                f"behind the others after {len(self.curve)} evaluations", report.step, self.seconds
            )

    def report_log(self, folder: Path) -> None:
        """Report the scores of a training that an earlier process finished, read from its log:
        other trials are compared with them."""
        for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["split"] == "validation":
                self._report(entry)  # the answer is ignored: this trial was not pruned

    def _report(self, values: Mapping[str, Any]) -> bool:
        """Report the score among the values of an evaluation, if it is there; whether the trial
        shall end."""
        value = values.get(self.metric)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        self.curve.append(float(value))
        return self.report(len(self.curve), float(value))

    def state(self) -> dict[str, object]:
        """The scores and the seconds so far, for a checkpoint."""
        return {
            "curve": list(self.curve),
            "seconds": self.seconds + time.monotonic() - self.started_at,
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Take over the scores of a checkpoint and report them again."""
        if state:
            self.curve, self.seconds = list(state["curve"]), float(state["seconds"])
            for evaluations, value in enumerate(self.curve, start=1):
                self.report(evaluations, value)  # the answer is ignored: the training went on


def _watchers() -> tuple[Part, ...]:
    """The watchers of a trial: its log, and the one that ends a diverging training."""
    return tuple(
        Part(name, registry.config("watchers", name)()) for name in ("jsonl", "divergence")
    )


__all__ = ["EndState", "Outcome", "Pruned", "ScoreReporter", "run_trial"]
