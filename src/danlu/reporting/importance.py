"""Which options decide the score: fANOVA over all trials, and PED-ANOVA for getting among the best.

fANOVA fits a forest of trees to the trials and shares the variance of its prediction among the
options.
Source: Hutter, Hoos and Leyton-Brown, 2014, An Efficient Approach for Assessing Hyperparameter
Importance, ICML. PED-ANOVA asks how far the values of an option among the best tenth of the trials
differ from those of all trials.
Source: Watanabe, Bansal and Hutter, 2023, arXiv:2304.10255. Both are Optuna's. Shares of one method
add up to 1 over the options that every trial has; an option that is asked of some trials alone is
judged among those."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danlu.recipe import Dimension
from danlu.reporting.drawing import Axis, Bar, Figure, Panel, linear_ticks, thinned
from danlu.reporting.scores import OptionAxis
from danlu.reporting.told import Objective, StudyTold, Trial, Words, short

if TYPE_CHECKING:
    import optuna

FEWEST = 8  # complete trials; with fewer any order of options could come out
_MOST = 300  # trials that the forest is fitted to, evenly chosen: its time grows with their square


@dataclass(frozen=True)
class Importance:
    """The shares of one option for one objective; `trials` is how many had it, `always` whether all
    did."""

    option: str
    objective: str
    variance: float
    best: float
    trials: int
    always: bool


def read_libraries() -> None:
    """Import what `importances` computes with: 1.7 s, which a caller who waits for something else
    can spend meanwhile."""
    with contextlib.suppress(ImportError):
        import optuna

        optuna.importance.FanovaImportanceEvaluator  # noqa: B018 - Optuna imports it, and scikit-learn, when it is first named


def importances(told: StudyTold) -> list[Importance]:
    """Every option for every objective, the weightiest first; [] where there are fewer than eight
    complete trials or two options."""
    if len(told.complete) < FEWEST or not told.space:
        return []
    found = []
    for place, objective in enumerate(told.objectives):
        trials = told.complete
        if len({float((trial.scores or ())[place]) for trial in trials}) < 2:
            continue  # all the same: nothing decided anything
        everywhere = [
            each for each in told.space if all(each.name in trial.values for trial in trials)
        ]
        shares = _shares(everywhere, trials, place, objective)
        found += [
            Importance(name, objective.metric, variance, best, len(trials), True)
            for name, (variance, best) in shares.items()
        ]
        for dimension in told.space:
            some = [trial for trial in trials if dimension.name in trial.values]
            if dimension in everywhere or len(some) < FEWEST:
                continue
            share = _shares([*everywhere, dimension], some, place, objective).get(dimension.name)
            if share is not None:
                found.append(Importance(dimension.name, objective.metric, *share, len(some), False))
    order = {objective.metric: place for place, objective in enumerate(told.objectives)}
    return sorted(found, key=lambda each: (order[each.objective], -each.variance, each.option))


def _shares(
    space: Sequence[Dimension], trials: Sequence[Trial], place: int, objective: Objective
) -> dict[str, tuple[float, float]]:
    """(share of the variance, share in being among the best tenth) by option that took more than
    one value."""
    import optuna

    axes = {each.name: OptionAxis(each, trials) for each in space}
    axes = {
        name: found
        for name, found in axes.items()
        if len({found.place(trial) for trial in trials}) > 1
    }
    if not axes:
        return {}
    if len(axes) == 1:
        return dict.fromkeys(axes, (1.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its evaluators experimental
        said = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            asked = [each for each in space if each.name in axes]
            some = _study(
                asked,
                axes,
                [trials[index] for index in thinned(len(trials), _MOST)],
                place,
                objective,
            )
            forest = optuna.importance.get_param_importances(
                some, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
            everyone = _study(asked, axes, trials, place, objective)
            best = optuna.importance.get_param_importances(
                everyone, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        finally:
            optuna.logging.set_verbosity(said)
    return {name: (float(forest.get(name, 0.0)), float(best.get(name, 0.0))) for name in axes}


def _study(
    space: Sequence[Dimension],
    axes: dict[str, OptionAxis],
    trials: Sequence[Trial],
    place: int,
    objective: Objective,
) -> optuna.Study:
    """The trials as an Optuna study in memory; a choice is known by its place."""
    import optuna

    study = optuna.create_study(
        direction="maximize" if objective.direction == "higher" else "minimize"
    )
    distributions = {each.name: _distribution(each, axes[each.name]) for each in space}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: _param(axes[name], trial) for name in distributions},
                distributions=distributions,
                value=float((trial.scores or ())[place]),
            )
            for trial in trials
        ]
    )
    return study


def _distribution(dimension: Dimension, found: OptionAxis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if found.places:
        return CategoricalDistribution(sorted(found.places.values()))
    return FloatDistribution(dimension.low, dimension.high, log=found.log)


def _param(found: OptionAxis, trial: Trial) -> Any:
    place = found.place(trial)
    assert place is not None
    return int(place) if found.places else place


def chart(told: StudyTold, found: Sequence[Importance]) -> Figure | None:
    """Two bars an option, one panel an objective."""
    panels = []
    for objective in told.objectives:
        mine = [each for each in found if each.objective == objective.metric]
        if not mine:
            continue
        bars = []
        for place, each in enumerate(mine):
            row = len(mine) - 1 - place
            kind = "" if each.always else " some"
            bars.append(Bar(each.variance, row + 0.2, 0.34, "first" + kind, f"{each.variance:.2f}"))
            bars.append(Bar(each.best, row - 0.2, 0.34, "second" + kind, f"{each.best:.2f}"))
        names = tuple(
            (float(len(mine) - 1 - place), short(each.option, 26) + ("" if each.always else " *"))
            for place, each in enumerate(mine)
        )
        share = Axis(0.0, 1.12, linear_ticks(0, 1), Words("share", "份额"))
        title = objective.metric if len(told.objectives) > 1 else ""
        panels.append(Panel(share, Axis(-0.6, len(mine) - 0.4, names), bars, title))
    if not panels:
        return None
    rows = max(len(panel.y.ticks) for panel in panels)
    some = any(not each.always for each in found)
    return Figure(
        "importance",
        Words("Importance of options", "各选项的重要性"),
        Words(
            "How much of the score's variation an option explains, and how much it decides over being among the best tenth of the trials.",
            "一个选项解释了成绩波动的多大份额；以及它在多大程度上决定一个试验能否进入最好的十分之一。",
        ),
        panels,
        height=70 + 38 * max(rows, 2),
        legend=[
            ("bar first", Words("of all variation (fANOVA)", "全部波动（fANOVA）")),
            (
                "bar second",
                Words("for the best tenth (PED-ANOVA)", "进入最好的十分之一（PED-ANOVA）"),
            ),
        ],
        left=200,
        notes=[
            Words(
                "Shares are estimates from these trials: with few trials, or options that go together, they are rough.",
                "份额由这些试验估计而来：试验很少，或几个选项相互牵连时，只是粗略的。",
            ),
            *(
                [
                    Words(
                        "* is asked of some trials alone, and judged among those.",
                        "* 只在一部分试验中出现，只与那些试验比较。",
                    )
                ]
                if some
                else []
            ),
        ],
    )
