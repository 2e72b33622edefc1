"""Asynchronous successive halving (ASHA): at evaluations 1, 3, 9, ... only the best third goes on.

There is a rung at each `first * reduction^k` evaluations. A trial at a rung is compared with every
other trial that has reached the rung by now, and goes on where it is among the best 1/reduction of
them (while fewer than `reduction` have, only where it is the best).

Source: Li et al., 2020, A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from danlu.recipe import Options
from danlu.search.pruners._base import Pruner
from danlu.search.pruners._rungs import falls_behind, rungs


class Config(Options):
    """Where the rungs are."""

    first: int = Field(1, ge=1, le=1_000_000, description="Evaluations at the first rung.")
    reduction: int = Field(
        3,
        ge=2,
        le=100,
        description="One in so many goes on at a rung, and the next is so many times as far.",
    )
    spared: int = Field(0, ge=0, le=100, description="Rungs at which nobody is ended yet.")


class SuccessiveHalvingPruner(Pruner):
    """Ends trials at rungs only.

    >>> pruner = SuccessiveHalvingPruner(Config(), "higher")
    >>> pruner.prune(3, [0.1], {0: [0.5], 1: [0.6], 2: [0.2]})
    True
    """

    def __init__(self, config: Config, direction: str) -> None:
        self.config = config
        self.direction = direction

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """Whether the trial is at a rung and not among the best there."""
        at = rungs(
            self.config.first * self.config.reduction**self.config.spared,
            self.config.reduction,
            len(curve),
        )
        return len(curve) in at and falls_behind(
            curve, others.values(), self.config.reduction, self.direction
        )


def build(config: Config, direction: str, seed: int) -> SuccessiveHalvingPruner:
    """The ASHA pruner."""
    return SuccessiveHalvingPruner(config, direction)
