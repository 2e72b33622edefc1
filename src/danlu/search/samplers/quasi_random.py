"""Quasi-random search: points of a scrambled Sobol sequence, spread more evenly than random ones.

Every dimension of the space, a choice too, is one coordinate. Suggestions do not depend on results,
so any number of trials can run together; a power of two of them is spread best.

Source: Sobol, 1967; Owen's scrambling, 1998, as in scipy.stats.qmc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from danlu.recipe import Options, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler


LEARNS = False


class Config(Options):
    """No options."""


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """A sampler that gives trial n the n-th point of the sequence, which the study's seed
    scrambles."""
    import numpy as np
    from optuna.samplers import RandomSampler
    from scipy.stats import qmc

    from danlu.search.samplers._optuna import SamplerByNumber, value_at

    def choose(study: Study, number: int) -> Mapping[str, Any]:
        sequence = qmc.Sobol(d=len(space), scramble=True, rng=np.random.default_rng(study_seed))
        point = sequence.fast_forward(number).random(1)[0] if number else sequence.random(1)[0]
        values: dict[str, Any] = {}
        for dimension, share in zip(space, point):
            if dimension.active(values):
                values[dimension.name] = value_at(dimension, float(share))
        return values

    return SamplerByNumber(space, choose, RandomSampler(seed=seed % 2**32))
