"""The search space in Optuna's terms, and samplers that choose by the number of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

from danlu.recipe import Dimension, Space, same_value


def distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's distribution of a dimension; for a choice, of the index among its choices."""
    if dimension.kind == "choice":
        return CategoricalDistribution(tuple(range(len(dimension.choices))))
    if dimension.kind == "integer":
        low, step = int(dimension.low), int(dimension.step or 1)
        return IntDistribution(
            low, low + (int(dimension.high) - low) // step * step, log=dimension.log, step=step
        )
    size = dimension.grid_size
    high = dimension.at(size - 1) if size else dimension.high
    return FloatDistribution(dimension.low, high, log=dimension.log, step=dimension.step)


def from_optuna(dimension: Dimension, stored: Any) -> Any:
    """The plain value for the one that Optuna suggested."""
    if dimension.kind == "choice":
        return dimension.choices[int(stored)]
    return int(stored) if dimension.kind == "integer" else float(stored)


def to_optuna(dimension: Dimension, value: Any) -> Any:
    """What Optuna gets for a plain value: for a choice its index, else the value itself.

    >>> to_optuna(Dimension("a", "choice", choices=("x", "y")), "y")
    1
    """
    if dimension.kind == "choice":
        return next(
            number for number, choice in enumerate(dimension.choices) if same_value(choice, value)
        )
    return value


def suggest_values(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The plain values of a new trial, for the dimensions that take part."""
    values: dict[str, Any] = {}
    for dimension in space:
        if not dimension.active(values):
            continue
        distributed = distribution(dimension)
        if isinstance(distributed, CategoricalDistribution):
            stored: Any = trial.suggest_categorical(dimension.name, distributed.choices)
        elif isinstance(distributed, IntDistribution):
            stored = trial.suggest_int(
                dimension.name,
                distributed.low,
                distributed.high,
                step=distributed.step,
                log=distributed.log,
            )
        else:
            assert isinstance(distributed, FloatDistribution)
            stored = trial.suggest_float(
                dimension.name,
                distributed.low,
                distributed.high,
                step=distributed.step,
                log=distributed.log,
            )
        values[dimension.name] = from_optuna(dimension, stored)
    return values


def value_at(dimension: Dimension, position: float) -> Any:
    """The plain value at a position in [0, 1) of a dimension. Equal lengths of positions belong to
    equal parts of its range (of its logarithm where `log`).

    >>> value_at(Dimension("a", "float", low=1.0, high=3.0), 0.5)
    2.0
    """
    if dimension.kind == "choice":
        return dimension.choices[
            min(int(position * len(dimension.choices)), len(dimension.choices) - 1)
        ]
    if dimension.kind == "integer" and dimension.log:
        low, high = (
            math.log(dimension.low - 0.5 if dimension.low > 0.5 else 0.5),
            math.log(dimension.high + 0.5),
        )
        return min(
            max(round(math.exp(low + position * (high - low))), int(dimension.low)),
            int(dimension.high),
        )
    if dimension.kind == "integer" or dimension.step is not None:
        step = dimension.step or 1
        count = math.floor((dimension.high - dimension.low) / step + 1e-9) + 1
        number = min(int(position * count), count - 1)
        return (
            int(dimension.low) + number * int(step)
            if dimension.kind == "integer"
            else dimension.at(number)
        )
    if dimension.log:
        value = math.exp(
            math.log(dimension.low)
            + position * (math.log(dimension.high) - math.log(dimension.low))
        )
    else:
        value = dimension.low + position * (dimension.high - dimension.low)
    return min(max(value, dimension.low), dimension.high)


def position_of(dimension: Dimension, value: Any) -> float:
    """The position at which `value_at` gives the value (the middle of those positions).

    >>> position_of(Dimension("a", "float", low=0.0, high=2.0), 0.5)
    0.25
    """
    if dimension.kind == "choice":
        return (to_optuna(dimension, value) + 0.5) / len(dimension.choices)
    if dimension.kind == "integer" and dimension.log:
        low, high = (
            math.log(dimension.low - 0.5 if dimension.low > 0.5 else 0.5),
            math.log(dimension.high + 0.5),
        )
        return (math.log(value) - low) / (high - low)
    if dimension.kind == "integer" or dimension.step is not None:
        step = dimension.step or 1
        count = math.floor((dimension.high - dimension.low) / step + 1e-9) + 1
        return (round((value - dimension.low) / step) + 0.5) / count
    if dimension.log:
        return (math.log(value) - math.log(dimension.low)) / (
            math.log(dimension.high) - math.log(dimension.low)
        )
    return (value - dimension.low) / (dimension.high - dimension.low)


Choose = Callable[[optuna.Study, int], Mapping[str, Any]]


class SamplerByNumber(BaseSampler):
    """A sampler that suggests for the trial with a number what `choose(study, number)` returns:
    plain values by name. `otherwise` draws the dimensions that `choose` leaves out."""

    def __init__(self, space: Space, choose: Choose, otherwise: BaseSampler) -> None:
        self.space = {dimension.name: dimension for dimension in space}
        self.choose = choose
        self.otherwise = otherwise
        self.chosen: tuple[int, Mapping[str, Any]] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: Any
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self.chosen is None or self.chosen[0] != trial.number:
            self.chosen = (trial.number, self.choose(study, trial.number))
        if param_name in self.chosen[1]:
            return to_optuna(self.space[param_name], self.chosen[1][param_name])
        return self.otherwise.sample_independent(study, trial, param_name, param_distribution)


def trials_in(
    study: optuna.Study, states: Sequence[str] = ("COMPLETE",)
) -> list[optuna.trial.FrozenTrial]:
    """The study's trials in one of these states, by number, not copied."""
    wanted = tuple(optuna.trial.TrialState[state] for state in states)
    return study.get_trials(deepcopy=False, states=wanted)
