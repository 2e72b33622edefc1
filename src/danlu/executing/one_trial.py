"""One trial: trained in its folder as `danlu train` would, its scores told on the way, and how it ended in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Ending = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: what `Study.tell` takes. Plain data, so that it crosses processes.

    `values` are the objectives' in their order (None where it was not completed); `facts` are scores, steps, seconds, parameters.
    `kind` is that of the cause where it failed (danlu.executing.causes): error, or memory, disk, held, which another time may not be.
    """

    state: Ending
    values: list[float] | None = None
    cause: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


def run_trial(
    recipe: Any,
    folder: Path,
    metrics: Sequence[str],
    folds: int | None,
    report: Callable[[int, float], bool],
    beat: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train a trial's recipe in its folder, or go on where a killed process left it, and say how it ended.

    `metrics` names the objectives (validation scores, loss, seconds, parameters). `report(evaluations, value)` hears the first
    objective after each evaluation, with how many there were, and answers whether the trial is to be ended there; `beat()` is
    called at every report of training, as a sign of life. A failure of the trial (exception, NaN, no memory) is an Outcome with its
    cause (`causes.cause_of`); Interrupted passes through.
    """
    raise NotImplementedError


__all__ = ["Ending", "Outcome", "run_trial"]
