"""The median rule: a trial ends where its best score so far is worse than what half of the others had reached by then.

Source: Golovin et al., 2017, Google Vizier, section 3.2.2.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from pydantic import Field

from danlu.recipe import Options


class Config(Options):
    """From when on trials are ended."""

    trials: int = Field(
        5,
        ge=1,
        le=100_000,
        description="Other trials that must have come as far before any is ended.",
    )
    after: int = Field(1, ge=1, le=1_000_000, description="Evaluations that every trial may have.")


class MedianPruner:
    """Compares the best score so far with the others' median."""

    def __init__(self, config: Config, direction: str) -> None:
        self.config = config
        self.sign = 1.0 if direction == "higher" else -1.0

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """Whether the best score of `curve` is worse than the median of the others' at this
        evaluation."""
        evaluation = len(curve)
        reached = [
            max(self.sign * score for score in other)
            for other in others.values()
            if len(other) >= evaluation
        ]
        if evaluation < self.config.after or len(reached) < self.config.trials:
            return False
        return max(self.sign * score for score in curve) < statistics.median(reached)


def build(config: Config, direction: str, seed: int) -> MedianPruner:
    """The median pruner."""
    return MedianPruner(config, direction)
