"""Stop when the validation score has not improved for some evaluations, or a share of the run.

A score that is not finite is no improvement. Evaluations before the first defined score are not
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from danlu.parts.watchers._base import RunInfo, Watcher
from danlu.recipe import Options
from danlu.terms import TrainingEvent


class Config(Options):
    """When training stops."""

    patience: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        5,
        description="Evaluations without improvement after which training stops; below 1, the "
        "share of all updates of the run.",
    )
    minimum_change: float = Field(
        0.0, ge=0, description="Least change of the score that counts as an improvement."
    )


class EarlyStopping(Watcher):
    """Counts evaluations since the last improvement of the score."""

    def __init__(self, config: Config, run: RunInfo) -> None:
        self.config = config
        self.metric = run.metric
        self.sign = 1.0 if run.better == "higher" else -1.0
        self.best: float | None = None
        self.waited = 0
        self.best_step = 0
        self.total_steps = run.total_steps

    def hear(self, report: TrainingEvent) -> str | None:
        if report.kind != "validation":
            return None
        score = report.values.get(self.metric)
        if isinstance(score, int | float):
            if self.best is None or self.sign * (score - self.best) > self.config.minimum_change:
                self.best, self.waited, self.best_step = float(score), 0, report.step
                return None
        elif self.best is None:
            return None
        self.waited += 1
        if not self._patience_is_over(report.step):
            return None
        return (
            f"validation {self.metric} has not improved for {self.waited} evaluations (best "
            f"{self.best:.6g})"
        )

    def _patience_is_over(self, step: int) -> bool:
        patience = self.config.patience
        if patience >= 1:
            return self.waited >= patience
        return step - self.best_step >= patience * self.total_steps

    def state(self) -> dict[str, object]:
        state: dict[str, object] = {"best": self.best, "waited": self.waited}
        return state if self.config.patience >= 1 else {**state, "best_step": self.best_step}

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state:
            self.best, self.waited = state["best"], state["waited"]
            self.best_step = state.get("best_step", 0)


def build(config: Config, run: RunInfo) -> EarlyStopping:
    """A watcher that asks to stop."""
    return EarlyStopping(config, run)
