"""What is tried next: a pure function of the seed, a trial's number, and the trials so far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from danlu import registry
from danlu.errors import MissingExtra
from danlu.recipe import Part, Space
from danlu.system.placement import draw_seed

SUGGESTION, PRUNING = 11, 12  # purposes of a draw, beside those of danlu.system.placement


@dataclass(frozen=True)
class Suggestion:
    """The values of a new trial by dotted name, and what the sampler stores with it (Optuna's
    system attributes: its generation)."""

    values: Mapping[str, Any]
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PastTrial:
    """A trial as samplers see it; `state` is running, complete, pruned or failed."""

    values: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    state: str
    scores: Sequence[float] | None = None
    curve: Mapping[int, float] = field(default_factory=dict)


class Suggester:
    """Suggests trial after trial. Its memory can be rebuilt at any time from the trials of the
    study."""

    def __init__(self, sampler: Part, space: Space, directions: Sequence[str], seed: int) -> None:
        optuna = import_optuna()
        self.sampler = sampler
        self.space = space
        self.directions = list(directions)
        self.seed = seed
        self.storage = optuna.storages.InMemoryStorage()
        optuna_directions = [
            "maximize" if direction == "higher" else "minimize" for direction in directions
        ]
        self.study = optuna.create_study(
            storage=self.storage, directions=optuna_directions, study_name="study"
        )
        self.running: set[int] = set()  # the trials that are running as far as it knows
        self.count = 0

    def update(self, count: int, past: Callable[[int], PastTrial]) -> None:
        """Add what is new among the `count` trials of the study; `past(number)` is one of them."""
        for number in sorted(self.running):
            self._finish(number, past(number))
        while self.count < count:
            self._add(past(self.count))

    def suggest(self) -> Suggestion:
        """The next trial, which then counts as running."""
        from danlu.search.samplers._optuna import suggest_values

        number = self.count
        seed = draw_seed(self.seed, SUGGESTION, number)
        self.study.sampler = registry.build_sampler(
            self.sampler, self.space, self.directions, seed, self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a sampler thinks of the space it was given
            trial = self.study.ask()
            values = suggest_values(trial, self.space)
        assert trial.number == number
        self.count += 1
        self.running.add(number)
        kept = self.storage.get_trial_system_attrs(self._id(number))
        return Suggestion(values, {name: value for name, value in kept.items() if _is_json(value)})

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(0, number)

    def _add(self, past: PastTrial) -> None:
        from danlu.search.samplers._optuna import distribution, to_optuna

        optuna = import_optuna()
        dimensions = [dimension for dimension in self.space if dimension.name in past.values]
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={
                dimension.name: to_optuna(dimension, past.values[dimension.name])
                for dimension in dimensions
            },
            distributions={dimension.name: distribution(dimension) for dimension in dimensions},
            system_attrs=dict(past.system_attrs),
        )
        self.storage.create_new_trial(0, template)
        self.running.add(self.count)
        self.count += 1
        self._finish(self.count - 1, past)

    def _finish(self, number: int, past: PastTrial) -> None:
        if past.state == "running":
            return
        optuna = import_optuna()
        states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        for evaluations, value in past.curve.items():
            self.storage.set_trial_intermediate_value(self._id(number), evaluations, value)
        values = list(past.scores) if past.state == "complete" and past.scores is not None else None
        self.storage.set_trial_state_values(
            self._id(number), optuna.trial.TrialState[states[past.state]], values
        )
        self.running.discard(number)


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def import_optuna() -> ModuleType:
    """The library optuna, set to report errors only. Raises MissingExtra."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("Optuna", "tune", "tuning") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
