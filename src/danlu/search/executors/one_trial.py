"""One trial: trained in its folder as `danlu train` would, its scores told on the way, and how it ended in plain words."""

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
from danlu.recipe import Part, Recipe
from danlu.search.executors.failure import cause_of
from danlu.terms import TrainingEvent
from danlu.training.cross_validation import cross_validate
from danlu.training.loop import train

Ending = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: what `Study.tell` takes. Plain data, so that it crosses processes.

    `values` are the objectives' in their order (None where it was not completed); `facts` are
    scores, steps, seconds, parameters. `kind` is that of the cause where it failed
    (danlu.search.executors.failure): error, or memory, disk, held, which another time may not be.
    """

    state: Ending
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
    """Train a trial's recipe in its folder, or go on where a killed process left it, and say how it
    ended.

    `metrics` names the objectives (validation scores, loss, seconds, parameters).
    `report(evaluations, value)` hears the first objective after each evaluation, with how many
    there were, and answers whether the trial is to be ended there; `beat()` is called at every
    report of training, as a sign of life. A failure of the trial (exception, NaN, no memory) is an
    Outcome with its cause (`causes.cause_of`); Interrupted passes through."""
    began = time.monotonic()
    watched = dataclasses.replace(recipe, watchers=_watchers())
    try:
        if folds:
            return _over_folds(watched, folder, metrics, folds, report, beat, began)
        beside = Reporter(metrics[0], report, beat)
        artifact = train(watched, folder, beside=beside)
        if not beside.curve:  # it had finished, and the study was killed before it heard so
            beside.say_again(folder)
        scores, told = artifact.scores["validation"], artifact.provenance
        facts = {
            "scores": {
                name: value
                for name, value in scores.items()
                if isinstance(value, int | float) and name != "rows"
            },
            "seconds": beside.seconds + time.monotonic() - began,
            "steps": told["step"],
            "best_step": told["best_step"],
            "parameters": told["parameters"],
        }
        return Outcome("complete", _values(metrics, facts), facts=facts)
    except Pruned as ended:
        facts = {"seconds": ended.seconds + time.monotonic() - began, "steps": ended.step}
        return Outcome("pruned", cause=str(ended), facts=facts)
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:
        cause = cause_of(error)
        return Outcome(
            "failed",
            cause=cause.sentence,
            facts={"seconds": time.monotonic() - began},
            kind=cause.kind,
        )


def _over_folds(
    recipe: Recipe,
    folder: Path,
    metrics: Sequence[str],
    folds: int,
    report: Callable[[int, float], bool],
    beat: Callable[[], None],
    began: float,
) -> Outcome:
    """A trial whose scores are means over folds; the mean of the folds so far is told after
    each."""
    parameters = steps = 0

    def after(scores: list[dict[str, Any]]) -> None:
        nonlocal parameters, steps
        told = load(folder / f"fold-{len(scores)}-of-{folds}").provenance
        parameters, steps = told["parameters"], steps + told["step"]
        known = [each[metrics[0]] for each in scores if metrics[0] in each]
        if (
            len(known) == len(scores)
            and report(len(scores), statistics.fmean(known))
            and len(scores) < folds
        ):
            raise Pruned(f"behind the others after {len(scores)} of {folds} folds", steps)

    found = cross_validate(
        recipe, folds, folder, beside=lambda: Reporter("", report, beat), after=after
    )
    seconds = time.monotonic() - began
    facts = {
        "scores": found["mean"],
        "std": found["std"],
        "folds": found["folds"],
        "seconds": seconds,
        "steps": steps,
    }
    facts["parameters"] = parameters
    return Outcome("complete", _values(metrics, facts), facts=facts)


def _values(metrics: Sequence[str], facts: Mapping[str, Any]) -> list[float]:
    """The objectives, from what was measured. Raises RunError for a score there is not."""
    found = {**facts["scores"], "seconds": facts["seconds"], "parameters": facts["parameters"]}
    lost = [metric for metric in metrics if metric not in found]
    if lost:
        raise RunError(f"there is no score {lost[0]} on these rows; there are {', '.join(found)}.")
    return [float(found[metric]) for metric in metrics]


class Pruned(Exception):
    """A trial ends because it fell behind the others."""

    def __init__(self, message: str, step: int, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.step = step
        self.seconds = seconds  # of lives before this one


class Reporter:
    """A watcher that tells the score `metric` ("": none) after each evaluation, and ends the
    training where it is told to.

    What it told is kept in checkpoints: a training that goes on says it again, since the study may
    have been killed as well."""

    def __init__(
        self, metric: str, report: Callable[[int, float], bool], beat: Callable[[], None]
    ) -> None:
        self.metric = metric
        self.report = report
        self.beat = beat
        self.curve: list[float] = []
        self.seconds = 0.0  # of lives before this one
        self.began = time.monotonic()

    def hear(self, report: TrainingEvent) -> None:
        self.beat()
        if report.kind == "validation" and self._tell(report.values):
            raise Pruned(
                f"behind the others after {len(self.curve)} evaluations", report.step, self.seconds
            )

    def say_again(self, folder: Path) -> None:
        """Tell the scores of a training that finished in an earlier life, by its log; others are
        pruned beside them."""
        for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["split"] == "validation":
                self._tell(entry)  # it had been let go on

    def _tell(self, values: Mapping[str, Any]) -> bool:
        """Tell the score among the values of an evaluation, where there is one; whether the trial
        is to end there."""
        value = values.get(self.metric)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        self.curve.append(float(value))
        return self.report(len(self.curve), float(value))

    def state(self) -> dict[str, Any]:
        return {"curve": list(self.curve), "seconds": self.seconds + time.monotonic() - self.began}

    def load(self, state: dict[str, Any] | None) -> None:
        if state:
            self.curve, self.seconds = list(state["curve"]), float(state["seconds"])
            for evaluations, value in enumerate(self.curve, start=1):
                self.report(evaluations, value)  # the answers were heard before: it went on


def _watchers() -> tuple[Part, ...]:
    """Who watches a trial: its log, and whoever stops one that runs away."""
    return tuple(
        Part(name, registry.config("watchers", name)()) for name in ("jsonl", "divergence")
    )


__all__ = ["Ending", "Outcome", "Pruned", "Reporter", "run_trial"]
