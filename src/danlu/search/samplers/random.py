"""Random search: uniform draws over each range (over its logarithm where the space says so).

Suggestions do not depend on results, so any number of trials can run together.

Source: Bergstra and Bengio, 2012, JMLR 13, 281-305.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from danlu.recipe import Options, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


LEARNS = False


class Config(Options):
    """No options."""


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """Optuna's random sampler."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed % 2**32)
