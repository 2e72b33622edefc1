"""Hyperband: successive halving in several brackets that begin to prune earlier or later.

Bracket s begins at `first * reduction^s` evaluations. A trial belongs to a bracket by its number
and the seed, more often to one that prunes early, and is compared only within its bracket. Good
where the first evaluations say little about the last.

Source: Li et al., 2018, Hyperband, JMLR 18(185), 1-52, in the asynchronous form of
arXiv:1810.05934.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import Field

from danlu.recipe import Options
from danlu.search.pruners._base import Pruner
from danlu.search.pruners._rungs import falls_behind, rungs


class Config(Options):
    """The brackets."""

    first: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Evaluations at the first rung of the most impatient bracket.",
    )
    most: int = Field(
        27,
        ge=1,
        le=1_000_000,
        description="Evaluations of a whole trial, about: the most patient bracket ends none.",
    )
    reduction: int = Field(
        3,
        ge=2,
        le=100,
        description="One in so many goes on at a rung, and the next is so many times as far.",
    )


class HyperbandPruner(Pruner):
    """Successive halving within the bracket of a trial."""

    def __init__(self, config: Config, direction: str, seed: int) -> None:
        self.config = config
        self.direction = direction
        self.seed = seed

    @cached_property
    def brackets(self) -> list[float]:
        """The weight of each bracket when trials are assigned, the earliest bracket first."""
        count, far = 1, self.config.first
        while far * self.config.reduction <= self.config.most:
            count, far = count + 1, far * self.config.reduction
        return [
            count * self.config.reduction**halvings / (halvings + 1)
            for halvings in range(count - 1, -1, -1)
        ]

    def bracket(self, number: int) -> int:
        """The bracket of a trial, from its number and the seed."""
        return random.Random(f"{self.seed} {number}").choices(
            range(len(self.brackets)), self.brackets
        )[0]

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """Whether the trial is at a rung of its bracket and not among the best there."""
        own_bracket = self.bracket(number)
        if own_bracket == len(self.brackets) - 1 and own_bracket > 0:
            return False
        if len(curve) not in rungs(
            self.config.first * self.config.reduction**own_bracket,
            self.config.reduction,
            len(curve),
        ):
            return False
        same_bracket = [
            other
            for other_number, other in others.items()
            if self.bracket(other_number) == own_bracket
        ]
        return falls_behind(curve, same_bracket, self.config.reduction, self.direction)


def build(config: Config, direction: str, seed: int) -> HyperbandPruner:
    """The Hyperband pruner."""
    return HyperbandPruner(config, direction, seed)
