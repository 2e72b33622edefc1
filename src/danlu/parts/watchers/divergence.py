"""Stop when training diverges: the training loss stays far above its first value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from danlu.parts.watchers._base import RunInfo, Watcher
from danlu.recipe import Options
from danlu.terms import TrainingEvent


class Config(Options):
    """From which loss on training counts as diverged."""

    factor: float = Field(
        100.0,
        gt=1,
        description="Training counts as diverged beyond this multiple of the first reported loss.",
    )
    reports: int = Field(3, ge=1, description="How many reports in a row must be beyond it.")


class Divergence(Watcher):
    """Compares every reported training loss with the first one; NaN and infinity are beyond it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.first: float | None = None
        self.beyond = 0

    def hear(self, report: TrainingEvent) -> str | None:
        loss = report.values.get("loss") if report.kind == "train" else None
        if not isinstance(loss, int | float):
            return None
        if self.first is None:
            self.first = abs(float(loss))
        limit = self.config.factor * max(self.first, 1e-3)
        self.beyond = self.beyond + 1 if not math.isfinite(loss) or loss > limit else 0
        if self.beyond < self.config.reports:
            return None
        return (
            f"diverged: the training loss is {loss:.4g}, and it began at {self.first:.4g}; "
            "lower optimizer.learning_rate"
        )

    def state(self) -> dict[str, object]:
        return {"first": self.first, "beyond": self.beyond}

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state:
            self.first, self.beyond = state["first"], state["beyond"]


def build(config: Config, run: RunInfo) -> Divergence:
    """A watcher that asks to stop."""
    return Divergence(config)
