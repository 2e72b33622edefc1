"""The data of a study for its report, and the text of values and names."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

from danlu.recipe import Dimension


class Bilingual(NamedTuple):
    """One text in both languages of a report."""

    en: str
    zh: str


@dataclass(frozen=True)
class Objective:
    """A score by which trials are compared, and whether higher or lower is better.

    >>> Objective("loss", "lower").sign
    -1.0
    """

    metric: str
    direction: Literal["higher", "lower"]

    @property
    def sign(self) -> float:
        """1.0 where higher is better, else -1.0."""
        return 1.0 if self.direction == "higher" else -1.0


class ReportedTrial(Protocol):
    """One trial of a study, as the study records it (danlu.search.study.TrialRecord).

    `values` are the options tried; `scores` has one value per objective (None or fewer for a trial
    that is not complete); `state` is complete, pruned, failed or running; `curve` is the first
    objective by evaluation (1, 2, ...).
    """

    @property
    def number(self) -> int: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def state(self) -> str: ...
    @property
    def scores(self) -> Sequence[float] | None: ...
    @property
    def cause(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def curve(self) -> Sequence[tuple[int, float]]: ...


@dataclass(frozen=True)
class StudyData:
    """A study for its report: its name, its objectives, the search space, and the trials by number.

    `facts` are (label, value) lines at the top of the report; `best` is the text of the best
    recipe.
    """

    name: str
    objectives: Sequence[Objective]
    space: Sequence[Dimension]
    trials: Sequence[ReportedTrial]
    facts: Sequence[tuple[Bilingual, str]] = ()
    best: str = ""

    @cached_property
    def complete(self) -> list[ReportedTrial]:
        """The complete trials with finite scores."""
        return [
            trial
            for trial in self.trials
            if trial.state == "complete" and trial.scores and all(map(math.isfinite, trial.scores))
        ]

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    @cached_property
    def best_trials(self) -> list[ReportedTrial]:
        """The complete trials that no other one beats in every objective (the Pareto front); with
        one objective, the first of the best."""
        if not self.complete:
            return []
        if len(self.objectives) == 1:
            return [max(self.complete, key=lambda trial: (self.merits(trial)[0], -trial.number))]
        return [
            trial
            for trial in self.complete
            if not any(self._beats(other, trial) for other in self.complete)
        ]

    def merits(self, trial: ReportedTrial) -> list[float]:
        """A complete trial's scores, one per objective, with the sign at which higher is better."""
        return [
            objective.sign * score for objective, score in zip(self.objectives, trial.scores or ())
        ]

    def _beats(self, one: ReportedTrial, other: ReportedTrial) -> bool:
        pairs = list(zip(self.merits(one), self.merits(other)))
        return all(first >= second for first, second in pairs) and any(
            first > second for first, second in pairs
        )

    def score(self, trial: ReportedTrial, objective: int = 0) -> float | None:
        """An objective of a trial, by its index; of a pruned trial the first objective as last
        reported; None where there is none."""
        if (
            trial.scores
            and objective < len(trial.scores)
            and math.isfinite(trial.scores[objective])
        ):
            return float(trial.scores[objective])
        finite = [value for _, value in trial.curve if math.isfinite(value)]
        return float(finite[-1]) if finite and trial.state == "pruned" and objective == 0 else None


def text_of(value: object) -> str:
    """The text of a tried value: strings as they are, numbers short, everything else as JSON.

    >>> text_of(0.1 + 0.2), text_of([8, 4]), text_of(None)
    ('0.3', '[8, 4]', 'null')
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return number(value)
    return clean(json.dumps(value, ensure_ascii=False, default=str))


def number(value: float) -> str:
    """A number with at most five significant digits, without trailing zeros.

    >>> number(0.123456)
    '0.12346'
    """
    return f"{value:.5g}" if math.isfinite(value) else str(value)


def short(text: str, letters: int = 28) -> str:
    """The text, cut to so many characters with an ellipsis.

    >>> short("learning_rate", 8)
    'learnin…'
    """
    return text if len(text) <= letters else text[: letters - 1] + "…"


def clean(text: str) -> str:
    """The text with U+FFFD for characters that XML forbids and for marks that reorder text."""
    return "".join(letter if _harmless(letter) else "\ufffd" for letter in text)


def _harmless(letter: str) -> bool:
    if letter in "\t\n\r":
        return True
    reorders = "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069"
    return (
        unicodedata.category(letter) not in ("Cc", "Cs")
        and letter not in "\ufffe\uffff"
        and not reorders
    )
