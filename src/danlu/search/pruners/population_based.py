"""Population-based training: bad trials copy good ones and vary their options.

It runs where many trials are one program (tune.on: vectorised), where the weights of a trial can be
copied. Every `every` evaluations, each of the worst `share` of the population becomes a copy of one
of the best `share`; each searched number of a copy is multiplied or divided by `factor`. The
options that a trial has taken over are stored with it.

Source: Jaderberg et al., 2017, arXiv:1711.09846.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from danlu.recipe import Options
from danlu.search.pruners._base import ExploitingPruner

EXPLOITS = True


class Config(Options):
    """When and how the population turns."""

    every: int = Field(1, ge=1, le=1_000_000, description="Evaluations between two turns.")
    share: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of the population that is replaced, and that is copied.",
    )
    factor: float = Field(
        1.2, gt=1, le=10, description="What a number of a copy is multiplied with or divided by."
    )


class PopulationBasedPruner(ExploitingPruner):
    """Says which trial copies which, and with which options."""

    def __init__(self, config: Config, direction: str) -> None:
        self.config = config
        self.direction = direction
        self.every = config.every

    def exploit(
        self,
        scores: Sequence[float | None],
        options: Mapping[str, Sequence[float]],
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Each of the worst trials copies one of the best (see ExploitingPruner.exploit)."""
        count = len(scores)
        sign = 1.0 if self.direction == "higher" else -1.0
        worth = np.array(
            [
                -np.inf if score is None or not np.isfinite(score) else sign * score
                for score in scores
            ]
        )
        order = np.argsort(-worth, kind="stable")
        moved = min(max(round(self.config.share * count), 1), count // 2)
        source = np.arange(count)
        after = {name: np.array(values, dtype=np.float64) for name, values in options.items()}
        for position in range(moved):
            loser, winner = order[count - 1 - position], order[generator.integers(moved)]
            if not worth[winner] > worth[loser]:
                continue
            source[loser] = winner
            for values in after.values():
                values[loser] = values[winner] * (
                    self.config.factor if generator.random() < 0.5 else 1 / self.config.factor
                )
        return source, after


def build(config: Config, direction: str, seed: int) -> PopulationBasedPruner:
    """The rule of population-based training."""
    return PopulationBasedPruner(config, direction)
