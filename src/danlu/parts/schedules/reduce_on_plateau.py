"""The learning rate multiplied by a factor whenever the validation score has stopped getting better.

    a score is better when it beats the best one so far by more than `threshold` of that one's size
    after more than `patience` evaluations in a row that are not: scale <- max(scale * factor, smallest), and the count starts again

It depends on scores, not on the step alone: its state is kept in the checkpoint. Needs a validation
split.
Source: torch.optim.lr_scheduler.ReduceLROnPlateau has the same rule (mode "rel").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from danlu.parts.schedules._base import ScoreSchedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the reduce-on-plateau schedule."""

    factor: float = Field(0.5, gt=0, lt=1, description="What the learning rate is multiplied by.")
    patience: int = Field(
        3,
        ge=0,
        description="Evaluations without a better score that are borne before the learning rate falls.",
    )
    threshold: float = Field(
        1e-4, ge=0, lt=1, description="Share of the best score by which a new one must beat it."
    )
    smallest: float = Field(
        1e-4, ge=0, le=1, description="Share of the learning rate below which it does not fall."
    )


class ReduceOnPlateau(ScoreSchedule):
    """schedule(step) -> scale; observe(score, better) lowers it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scale = 1.0
        self.best: float | None = None
        self.waited = 0

    def __call__(self, step: int) -> float:
        """The scale as it stands, whatever the step."""
        return self.scale

    def observe(self, score: float | None, better: Literal["higher", "lower"]) -> None:
        """Hear the score of an evaluation; None or NaN counts as not better."""
        if self._is_better(score, better):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.scale = max(self.scale * self.config.factor, min(self.config.smallest, self.scale))
            self.waited = 0

    def _is_better(self, score: float | None, better: Literal["higher", "lower"]) -> bool:
        if score is None or math.isnan(score):
            return False
        if self.best is None:
            return True
        margin = abs(self.best) * self.config.threshold
        return score > self.best + margin if better == "higher" else score < self.best - margin

    def state(self) -> dict[str, object]:
        """What must be kept to go on."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.scale, self.best, self.waited = (
            float(state["scale"]),
            state["best"],
            int(state["waited"]),
        )


def build(config: Config, total_steps: int) -> ReduceOnPlateau:
    """A schedule that starts at 1 and falls when observe() hears no better score."""
    return ReduceOnPlateau(config)
