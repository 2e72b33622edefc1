"""Which options determine the score: fANOVA over all trials, PED-ANOVA for the best ones.

fANOVA fits a random forest to the trials and divides the variance of its prediction among the
options (Hutter, Hoos and Leyton-Brown, 2014, An Efficient Approach for Assessing Hyperparameter
Importance, ICML). PED-ANOVA measures how much the values of an option among the best tenth of the
trials differ from those of all trials (Watanabe, Bansal and Hutter, 2023, arXiv:2304.10255). Both
are Optuna's. The shares of one method add up to 1 over the options that every trial has; an option
that only some trials have is judged among those.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from danlu.recipe import Dimension
from danlu.reporting.axes import OptionAxis
from danlu.reporting.figure import Axis, Bar, Figure, Panel, linear_ticks, thinned
from danlu.reporting.study_data import Bilingual, Objective, ReportedTrial, StudyData, short

if TYPE_CHECKING:
    import optuna

MIN_TRIALS = 8  # complete trials; with fewer any order of options could come out
_MAX_FOREST_TRIALS = (
    300  # trials that the forest is fitted to, evenly chosen: its time grows with their square
)


@dataclass(frozen=True)
class Importance:
    """The shares of one option for one objective: of the variance, and in reaching the best tenth.
    `trials` is how many trials have the option; `always` whether all have it."""

    option: str
    objective: str
    variance: float
    best: float
    trials: int
    always: bool


def import_libraries() -> None:
    """Import what `importances` needs. It takes 1.7 s, which a caller can spend while it waits for
    something else."""
    with contextlib.suppress(ImportError):
        import optuna

        optuna.importance.FanovaImportanceEvaluator  # noqa: B018 - Optuna imports it, and scikit-learn, when it is first named


def importances(study: StudyData) -> list[Importance]:
    """The importance of every option for every objective, the highest share of variance first; []
    where there are fewer than eight complete trials, or no options."""
    if len(study.complete) < MIN_TRIALS or not study.space:
        return []
    results = []
    for index, objective in enumerate(study.objectives):
        trials = study.complete
        if len({float((trial.scores or ())[index]) for trial in trials}) < 2:
            continue  # all the same: nothing decided anything
        everywhere = [
            dimension
            for dimension in study.space
            if all(dimension.name in trial.values for trial in trials)
        ]
        shares = _shares(everywhere, trials, index, objective)
        results += [
            Importance(name, objective.metric, variance, best, len(trials), True)
            for name, (variance, best) in shares.items()
        ]
        for dimension in study.space:
            having_it = [trial for trial in trials if dimension.name in trial.values]
            if dimension in everywhere or len(having_it) < MIN_TRIALS:
                continue
            share = _shares([*everywhere, dimension], having_it, index, objective).get(
                dimension.name
            )
            if share is not None:
                results.append(
                    Importance(dimension.name, objective.metric, *share, len(having_it), False)
                )
    order = {objective.metric: index for index, objective in enumerate(study.objectives)}
    return sorted(
        results, key=lambda share: (order[share.objective], -share.variance, share.option)
    )


def _shares(
    space: Sequence[Dimension],
    trials: Sequence[ReportedTrial],
    objective_index: int,
    objective: Objective,
) -> dict[str, tuple[float, float]]:
    """(share of the variance, share in reaching the best tenth) of each option with more than one
    value."""
    import optuna

    axes = {dimension.name: OptionAxis(dimension, trials) for dimension in space}
    axes = {
        name: option_axis
        for name, option_axis in axes.items()
        if len({option_axis.position(trial) for trial in trials}) > 1
    }
    if not axes:
        return {}
    if len(axes) == 1:
        return dict.fromkeys(axes, (1.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its evaluators experimental
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            searched = [dimension for dimension in space if dimension.name in axes]
            subset = _study(
                searched,
                axes,
                [trials[index] for index in thinned(len(trials), _MAX_FOREST_TRIALS)],
                objective_index,
                objective,
            )
            forest = optuna.importance.get_param_importances(
                subset, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
            all_trials = _study(searched, axes, trials, objective_index, objective)
            best = optuna.importance.get_param_importances(
                all_trials, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        finally:
            optuna.logging.set_verbosity(verbosity)
    return {name: (float(forest.get(name, 0.0)), float(best.get(name, 0.0))) for name in axes}


def _study(
    space: Sequence[Dimension],
    axes: dict[str, OptionAxis],
    trials: Sequence[ReportedTrial],
    index: int,
    objective: Objective,
) -> optuna.Study:
    """The trials as an Optuna study in memory; a choice is represented by its index."""
    import optuna

    study = optuna.create_study(
        direction="maximize" if objective.direction == "higher" else "minimize"
    )
    distributions = {
        dimension.name: _distribution(dimension, axes[dimension.name]) for dimension in space
    }
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: _param(axes[name], trial) for name in distributions},
                distributions=distributions,
                value=float((trial.scores or ())[index]),
            )
            for trial in trials
        ]
    )
    return study


def _distribution(
    dimension: Dimension, option_axis: OptionAxis
) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if option_axis.choices:
        return CategoricalDistribution(sorted(option_axis.choices.values()))
    return FloatDistribution(dimension.low, dimension.high, log=option_axis.log)


def _param(option_axis: OptionAxis, trial: ReportedTrial) -> float:
    position = option_axis.position(trial)
    assert position is not None
    return int(position) if option_axis.choices else position


def importance_chart(study: StudyData, importances_found: Sequence[Importance]) -> Figure | None:
    """Two bars per option, one panel per objective; None where there is no importance."""
    panels = []
    for objective in study.objectives:
        of_objective = [
            importance
            for importance in importances_found
            if importance.objective == objective.metric
        ]
        if not of_objective:
            continue
        bars = []
        for index, importance in enumerate(of_objective):
            row = len(of_objective) - 1 - index
            kind = "" if importance.always else " some"
            bars.append(
                Bar(
                    importance.variance,
                    row + 0.2,
                    0.34,
                    "first" + kind,
                    f"{importance.variance:.2f}",
                )
            )
            bars.append(
                Bar(importance.best, row - 0.2, 0.34, "second" + kind, f"{importance.best:.2f}")
            )
        names = tuple(
            (
                float(len(of_objective) - 1 - index),
                short(importance.option, 26) + ("" if importance.always else " *"),
            )
            for index, importance in enumerate(of_objective)
        )
        share = Axis(0.0, 1.12, linear_ticks(0, 1), Bilingual("share", "份额"))
        title = objective.metric if len(study.objectives) > 1 else ""
        panels.append(Panel(share, Axis(-0.6, len(of_objective) - 0.4, names), bars, title))
    if not panels:
        return None
    rows = max(len(panel.y.ticks) for panel in panels)
    some = any(not importance.always for importance in importances_found)
    return Figure(
        "importance",
        Bilingual("Importance of options", "各选项的重要性"),
        Bilingual(
            "How much of the score's variation an option explains, and how much it decides over "
            "being among the best tenth of the trials.",
            "一个选项解释了成绩波动的多大份额；以及它在多大程度上决定一个试验能否进入最好的十分之一。",
        ),
        panels,
        height=70 + 38 * max(rows, 2),
        legend=[
            ("bar first", Bilingual("of all variation (fANOVA)", "全部波动（fANOVA）")),
            (
                "bar second",
                Bilingual("for the best tenth (PED-ANOVA)", "进入最好的十分之一（PED-ANOVA）"),
            ),
        ],
        left=200,
        notes=[
            Bilingual(
                "Shares are estimates from these trials: with few trials, or options that go "
                "together, they are rough.",
                "份额由这些试验估计而来：试验很少，或几个选项相互牵连时，只是粗略的。",
            ),
            *(
                [
                    Bilingual(
                        "* is asked of some trials alone, and judged among those.",
                        "* 只在一部分试验中出现，只与那些试验比较。",
                    )
                ]
                if some
                else []
            ),
        ],
    )
