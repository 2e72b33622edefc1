"""What a report is told of a study, and the few questions every chart asks of it."""

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
    """What a trial is judged by."""

    metric: str
    direction: Literal["higher", "lower"]

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1."""
        return 1.0 if self.direction == "higher" else -1.0


class ReportedTrial(Protocol):
    """One trial as it was recorded (danlu.search.study.TrialRecord).

    `values` are the options tried, `scores` one number an objective (of a pruned trial: none, or
    the last reported), `state` complete, pruned, failed or running, `curve` the first objective by
    evaluation (1, 2, ...)."""

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
    """A study for its report: name, what was sought, the space, the trials in the order of their
    numbers.

    `facts` are (subject, value) lines shown at the head, `best` the text of the best recipe.
    """

    name: str
    objectives: Sequence[Objective]
    space: Sequence[Dimension]
    trials: Sequence[ReportedTrial]
    facts: Sequence[tuple[Bilingual, str]] = ()
    best: str = ""

    @cached_property
    def complete(self) -> list[ReportedTrial]:
        """Trials that ended with finite scores."""
        return [
            trial
            for trial in self.trials
            if trial.state == "complete" and trial.scores and all(map(math.isfinite, trial.scores))
        ]

    def count(self, state: str) -> int:
        """How many trials are in this state."""
        return sum(trial.state == state for trial in self.trials)

    @cached_property
    def best_trials(self) -> list[ReportedTrial]:
        """The complete trials that no other one beats in every objective; with one objective, the
        first of the best."""
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
        """Scores with the sign at which higher is better."""
        return [objective.sign * score for objective, score in zip(self.objectives, trial.scores or ())]

    def _beats(self, one: ReportedTrial, other: ReportedTrial) -> bool:
        pairs = list(zip(self.merits(one), self.merits(other)))
        return all(first >= second for first, second in pairs) and any(
            first > second for first, second in pairs
        )

    def score(self, trial: ReportedTrial, objective: int = 0) -> float | None:
        """The place-th objective of a trial; of one that was pruned, the first one as it was
        reported last."""
        if trial.scores and objective < len(trial.scores) and math.isfinite(trial.scores[objective]):
            return float(trial.scores[objective])
        finite = [value for _, value in trial.curve if math.isfinite(value)]
        return float(finite[-1]) if finite and trial.state == "pruned" and objective == 0 else None


def text_of(value: Any) -> str:
    """A tried value in words: text as it is, numbers short, all else as JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return number(value)
    return clean(json.dumps(value, ensure_ascii=False, default=str))


def number(value: float) -> str:
    """At most five digits that count, without trailing zeros."""
    return f"{value:.5g}" if math.isfinite(value) else str(value)


def short(text: str, letters: int = 28) -> str:
    """At most so many letters, the rest told by an ellipsis."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def clean(text: str) -> str:
    """Text without what no XML may hold and without marks that reorder what is read; U+FFFD stands
    in their place."""
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
