"""The axes of scores and of options, chosen by the values that the trials have."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from danlu.recipe import Dimension
from danlu.reporting.figure import Axis, axis, category_axis
from danlu.reporting.study_data import Bilingual, Objective, ReportedTrial, short, text_of

_LOG_RATIO = 50.0  # times: positive numbers that differ by more stand on a logarithmic axis
_MAX_STRETCH = (
    4.0  # times its range without them: so far an axis is stretched for scores that went astray
)
_OUTLIER_IQRS = 3.0  # quartile distances beyond the quartile: there a bad score went astray


def score_axis(scores: Sequence[float], objective: Objective) -> tuple[Axis, int]:
    """(the Axis, how many scores are beyond its worse end and drawn there): outliers must not press
    all other scores into a line."""
    finite = np.array([score for score in scores if math.isfinite(score)])
    label = objective.metric
    if len(finite) and finite.min() > 0 and finite.max() > _LOG_RATIO * finite.min():
        return axis(finite.tolist(), label, log=True), 0
    if len(finite) < 5:
        return axis(finite.tolist(), label), 0
    merits = objective.sign * finite
    low, high = np.quantile(merits, [0.25, 0.75])
    kept = merits >= low - _OUTLIER_IQRS * max(high - low, 1e-12)
    if np.ptp(finite) <= _MAX_STRETCH * np.ptp(finite[kept]):
        return axis(finite.tolist(), label), 0
    return axis(finite[kept].tolist(), label), int((~kept).sum())


def clipped_note(count: int) -> tuple[Bilingual, ...]:
    """The note about scores that are beyond an axis; () where there are none."""
    if not count:
        return ()
    return (
        Bilingual(
            f"{count} {'trial was' if count == 1 else 'trials were'} so much worse that they are "
            "drawn at the edge.",
            f"有 {count} 个试验差得太远，画在边缘上。",
        ),
    )


class OptionAxis:
    """The axis of one option of the search space."""

    def __init__(self, dimension: Dimension, trials: Sequence[ReportedTrial]) -> None:
        self.name, self.log = dimension.name, dimension.log
        self.choices: dict[str, int] = {}
        if dimension.kind == "choice":
            tried = [trial.values[self.name] for trial in trials if self.name in trial.values]
            for value in [*dimension.choices, *tried]:
                self.choices.setdefault(_key(value), len(self.choices))
            names = [short(text_of(json.loads(key)), 18) for key in self.choices]
            self.axis = category_axis(names, self.name)
        else:
            low, high = dimension.low, dimension.high
            wide = axis(
                [low, high], self.name, log=self.log, whole=dimension.kind == "integer", room=0.05
            )
            self.axis = replace(
                wide,
                ticks=tuple(
                    tick
                    for tick in wide.ticks
                    if low <= tick[0] * (1 + 1e-9) and tick[0] <= high * (1 + 1e-9)
                ),
            )

    def position(self, trial: ReportedTrial) -> float | None:
        """The position of a trial's value on this axis; None where the trial does not have the
        option."""
        if self.name not in trial.values:
            return None
        value = trial.values[self.name]
        return float(self.choices[_key(value)]) if self.choices else float(value)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
