"""Trials in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable

from danlu.errors import Interrupted
from danlu.search.context import Setting
from danlu.search.executors.one_trial import run_trial
from danlu.search.study import Study, Trial


def run(study: Study, setting: Setting) -> None:
    """Train trial after trial until none is left. Raises Interrupted where somebody asks to stop;
    the running trial is saved by then."""
    metrics = [metric for metric, _ in study.objectives]
    interruption = setting.interruption
    patient, interruption.deferred = interruption.deferred, True
    try:
        while not interruption.exit_code and (trials := study.take(1)):
            for trial in trials:
                outcome = run_trial(
                    trial.recipe, trial.folder, metrics, study.folds, _report(study, trial)
                )
                study.tell(trial, outcome.values, outcome.state, outcome.cause, outcome.facts)
                setting.tell(study.record(trial.number))
                if interruption.exit_code:
                    break
    finally:
        interruption.deferred = patient
    if interruption.exit_code:
        raise Interrupted(
            f"{interruption.name}: the study is saved.",
            exit_code=interruption.exit_code,
            hint="run the same command again: it goes on from there",
        )


def _report(study: Study, trial: Trial) -> Callable[[int, float], bool]:
    """What hears the scores of a trial and answers whether it ends."""

    def report(evaluations: int, value: float) -> bool:
        study.report(trial, evaluations, value)
        return study.should_prune(trial)

    return report
