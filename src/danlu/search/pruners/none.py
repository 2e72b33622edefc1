"""No pruning: every trial runs to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from danlu.recipe import Options


class Config(Options):
    """No options."""


class NoPruner:
    """Ends no trial."""

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """False."""
        return False


def build(config: Config, direction: str, seed: int) -> NoPruner:
    """A pruner that never prunes."""
    return NoPruner()
