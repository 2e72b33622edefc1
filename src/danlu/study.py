"""A study: the trials of one recipe's search, on disk, resumable. The only place that touches Optuna's storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from danlu.recipe import Recipe


@dataclass(frozen=True)
class Trial:
    """A trial to be run: `values` by dotted name, the recipe with them, and the folder that is its own (it may not exist yet)."""

    number: int
    values: Mapping[str, Any]
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Record:
    """What a study knows of a trial.

    `scores` holds the objectives in their order (None where it did not come so far), `curve` the first objective by evaluation (1, 2,
    ...), `facts` what else was measured (validation scores by name, seconds, steps, parameters, best_step).
    """

    number: int
    values: Mapping[str, Any]
    state: Literal["running", "complete", "pruned", "failed"]
    scores: tuple[float, ...] | None = None
    cause: str = ""
    seconds: float = 0.0
    steps: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "values": dict(self.values), "curve": [list(each) for each in self.curve], "facts": dict(self.facts)}


class Study:
    """The study of a recipe (with a section tune) in a folder: opened where there is one, else begun. A context manager.

    `objectives` are [(metric, "higher" | "lower")], `folds`, `budget` and `space` as the recipe says, `plan` what was decided once.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        raise NotImplementedError

    def take(self, count: int = 1) -> list[Trial]:
        """Up to `count` trials to be run at the same time; [] when the budget is used up.

        First those that a dead process left running, in order of their numbers (all of one batch together, even where these are fewer than
        `count`); then new ones, all suggested before any of them is run.
        """
        raise NotImplementedError

    def report(self, trial: Trial, evaluations: int, value: float) -> None:
        """The first objective of a trial after its evaluation number `evaluations` (1, 2, ...). Saying it again changes nothing."""
        raise NotImplementedError

    def should_prune(self, trial: Trial) -> bool:
        """Whether a trial ends at its last reported evaluation. Report those that stand beside it first."""
        raise NotImplementedError

    def tell(
        self,
        trial: Trial,
        values: list[float] | None,
        state: Literal["complete", "pruned", "failed"],
        cause: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """How a trial ended: its objectives where it is complete, the cause where it failed."""
        raise NotImplementedError

    def decide(self, name: str, choose: Any) -> Any:
        """What was decided under `name` when the study began; the first time `choose()` decides, and it is stored."""
        raise NotImplementedError

    def trials(self) -> list[Record]:
        """Every trial so far, by number."""
        raise NotImplementedError

    def best(self) -> Record | None:
        """The best complete trial by the first objective; the earlier where two are equal."""
        raise NotImplementedError

    def write_best(self) -> Path | None:
        """FOLDER/best.yaml: the best trial's recipe, ready to be trained, its score in comments; None while no trial is complete."""
        raise NotImplementedError
