"""No pruning: every trial runs to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from danlu.recipe import Options
from danlu.search.pruners._base import Pruner


class Config(Options):
    """No options."""


class NoPruner(Pruner):
    """Ends no trial."""

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """False."""
        return False


def build(config: Config, direction: str, seed: int) -> NoPruner:
    """A pruner that never prunes."""
    return NoPruner()
