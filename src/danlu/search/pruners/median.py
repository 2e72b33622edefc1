"""The median rule: end a trial whose best score is below the median of the others' best scores.

A trial is compared at each evaluation with the best scores that the other trials had reached by the
same evaluation.

Source: Golovin et al., 2017, Google Vizier, section 3.2.2.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from pydantic import Field

from danlu.recipe import Options
from danlu.search.pruners._base import Pruner


class Config(Options):
    """From when on trials are ended."""

    trials: int = Field(
        5,
        ge=1,
        le=100_000,
        description="Other trials that must have come as far before any is ended.",
    )
    after: int = Field(1, ge=1, le=1_000_000, description="Evaluations that every trial may have.")


class MedianPruner(Pruner):
    """Compares the best score so far with the median of the others.

    >>> pruner = MedianPruner(Config(trials=2), "higher")
    >>> pruner.prune(2, [0.1, 0.2], {0: [0.5, 0.6], 1: [0.4, 0.3]})
    True
    """

    def __init__(self, config: Config, direction: str) -> None:
        self.config = config
        self.sign = 1.0 if direction == "higher" else -1.0

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """Whether the best score of `curve` is worse than the median of the others' best at this
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
