"""The learning rate is multiplied by a factor when the validation score stops improving.

    a score improves when it beats the best so far by more than threshold * |best|
    after more than `patience` evaluations in a row without improvement:
        scale <- max(scale * factor, smallest), and the count starts again at 0

It depends on scores, so its state is part of the checkpoint, and it needs a validation split.
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

    factor: float = Field(
        0.5, gt=0, lt=1, description="Factor on the learning rate at each reduction."
    )
    patience: int = Field(
        3,
        ge=0,
        description="Evaluations without improvement before the learning rate falls.",
    )
    threshold: float = Field(
        1e-4, ge=0, lt=1, description="Share of the best score by which a new one must beat it."
    )
    smallest: float = Field(
        1e-4, ge=0, le=1, description="Share of the learning rate below which it does not fall."
    )


class ReduceOnPlateau(ScoreSchedule):
    """A factor that `observe` lowers; the step does not matter."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scale = 1.0
        self.best: float | None = None
        self.waited = 0

    def __call__(self, step: int) -> float:
        """The current factor, whatever the step."""
        return self.scale

    def observe(self, score: float | None, better: Literal["higher", "lower"]) -> None:
        """Take the score of an evaluation; None or NaN counts as no improvement."""
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
        """JSON values: factor, best score, evaluations without improvement."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.scale, self.best, self.waited = (
            float(state["scale"]),
            state["best"],
            int(state["waited"]),
        )


def build(config: Config, total_steps: int) -> ReduceOnPlateau:
    """A ScoreSchedule that starts at 1 and falls when scores stop improving.

    >>> schedule = build(Config(patience=0), 100)
    >>> for score in (0.5, 0.6, 0.6): schedule.observe(score, "higher")
    >>> schedule(10)
    0.5
    """
    return ReduceOnPlateau(config)
