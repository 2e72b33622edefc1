"""Run trials in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable

from danlu.errors import Interrupted
from danlu.search.context import SearchContext
from danlu.search.executors.one_trial import run_trial
from danlu.search.study import Study, Trial


def run(study: Study, context: SearchContext) -> None:
    """Train trial after trial until the study has none left. Raises Interrupted after a signal; the
    running trial is saved by then."""
    metrics = [metric for metric, _ in study.objectives]
    interruption = context.interruption
    deferred, interruption.deferred = interruption.deferred, True
    try:
        while not interruption.exit_code and (trials := study.take(1)):
            for trial in trials:
                outcome = run_trial(
                    trial.recipe, trial.folder, metrics, study.folds, _report(study, trial)
                )
                study.tell(trial, outcome.values, outcome.state, outcome.cause, outcome.facts)
                context.notify(study.record(trial.number))
                if interruption.exit_code:
                    break
    finally:
        interruption.deferred = deferred
    if interruption.exit_code:
        raise Interrupted(
            f"{interruption.name}: the study is saved.",
            exit_code=interruption.exit_code,
            hint="run the same command again: it goes on from there",
        )


def _report(study: Study, trial: Trial) -> Callable[[int, float], bool]:
    """A function that reports a score of the trial and returns whether the trial shall end."""

    def report(evaluations: int, value: float) -> bool:
        study.report(trial, evaluations, value)
        return study.should_prune(trial)

    return report
