"""What is tried next: a pure function of the study's seed, a trial's number, and the trials told so far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from danlu import registry
from danlu.errors import MissingExtra
from danlu.recipe import Part, Space
from danlu.system.placement import draw_seed

SUGGESTION, PRUNING = 11, 12  # purposes of a draw, beside those of danlu.system.placement


@dataclass(frozen=True)
class Suggestion:
    """`values` by dotted name, and what the sampler wants kept with the trial (its generation)."""

    values: Mapping[str, Any]
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """A trial as samplers see it: `state` is running, complete, pruned or failed."""

    values: Mapping[str, Any]
    kept: Mapping[str, Any]
    state: str
    scores: Sequence[float] | None = None
    curve: Mapping[int, float] = field(default_factory=dict)


class Suggesting:
    """Suggests trial after trial. What it holds in memory can be made anew, at any time, from the
    trials told."""

    def __init__(self, sampler: Part, space: Space, directions: Sequence[str], seed: int) -> None:
        optuna = imported()
        self.sampler = sampler
        self.space = space
        self.directions = list(directions)
        self.seed = seed
        self.storage = optuna.storages.InMemoryStorage()
        named = ["maximize" if each == "higher" else "minimize" for each in directions]
        self.study = optuna.create_study(storage=self.storage, directions=named, study_name="study")
        self.open: set[int] = set()  # the trials that are running as far as it knows
        self.count = 0

    def see(self, count: int, past: Callable[[int], Past]) -> None:
        """Take over what is new among the `count` trials there are; `past(number)` gives one of
        them."""
        for number in sorted(self.open):
            self._end(number, past(number))
        while self.count < count:
            self._add(past(self.count))

    def suggest(self) -> Suggestion:
        """The next trial, which then counts as running."""
        from danlu.search.samplers._optuna import ask

        number = self.count
        seed = draw_seed(self.seed, SUGGESTION, number)
        self.study.sampler = registry.build_sampler(
            self.sampler, self.space, self.directions, seed, self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a sampler thinks of the space it was given
            trial = self.study.ask()
            values = ask(trial, self.space)
        assert trial.number == number
        self.count += 1
        self.open.add(number)
        kept = self.storage.get_trial_system_attrs(self._id(number))
        return Suggestion(values, {name: value for name, value in kept.items() if _plain(value)})

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(0, number)

    def _add(self, past: Past) -> None:
        from danlu.search.samplers._optuna import distribution, stored_of

        optuna = imported()
        dimensions = [each for each in self.space if each.name in past.values]
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={each.name: stored_of(each, past.values[each.name]) for each in dimensions},
            distributions={each.name: distribution(each) for each in dimensions},
            system_attrs=dict(past.kept),
        )
        self.storage.create_new_trial(0, template)
        self.open.add(self.count)
        self.count += 1
        self._end(self.count - 1, past)

    def _end(self, number: int, past: Past) -> None:
        if past.state == "running":
            return
        optuna = imported()
        states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        for evaluations, value in past.curve.items():
            self.storage.set_trial_intermediate_value(self._id(number), evaluations, value)
        values = list(past.scores) if past.state == "complete" and past.scores is not None else None
        self.storage.set_trial_state_values(
            self._id(number), optuna.trial.TrialState[states[past.state]], values
        )
        self.open.discard(number)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def imported() -> Any:
    """The library optuna, which speaks only where something is wrong. Raises MissingExtra."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("Optuna", "tune", "tuning") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
