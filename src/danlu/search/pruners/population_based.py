"""Population-based training: at every turn the worst trials take over weights and options of the best, and change the options a little.

Runs where many trials are one program (tune.on: vectorised), since there a trial's weights are rows
that can be copied. At a turn the last `share` of the population becomes a copy each of one of the
first `share`; each searched number of a copy is multiplied or divided by `factor`. What a trial has
become is told with it. Source: Jaderberg et al., 2017, arXiv:1711.09846."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from danlu.recipe import Options

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


class PopulationBasedPruner:
    """Says who becomes whose copy, and with which options."""

    def __init__(self, config: Config, direction: str) -> None:
        self.config = config
        self.direction = direction
        self.every = config.every

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """False: trials take over from others, and none ends."""
        return False

    def exploit(
        self,
        scores: Sequence[float | None],
        options: Mapping[str, Sequence[float]],
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(int64 (K,) whose copy each trial becomes, itself for most; the options of all K after
        the turn, by name).

        `scores` are the K trials' last ones, None or NaN where one has none (it counts as worst);
        `options` the numbers that are searched, K each. The options of copies may leave the space's
        range: who calls brings them back. Equal scores go by number."""
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
