"""Evolution by CMA-ES: each generation is drawn from a Gaussian fitted to the one before.

For numbers, with a budget of some hundred trials or more; choices, and dimensions that take part
only at times, are drawn at random. A generation is `population` complete trials in the order of
their numbers; the state is computed anew from all trials told, so nothing is stored.

Source: Hansen and Ostermeier, 2001; Hansen, 2016, arXiv:1604.00772; the library cmaes (Nomura and
Shibata, 2024, arXiv:2402.01373).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.recipe import Options, Space

if TYPE_CHECKING:
    from cmaes import CMA
    from optuna import Study
    from optuna.samplers import BaseSampler

SEVERAL = False  # one objective


class Config(Options):
    """The population."""

    population: int | None = Field(
        None, ge=4, le=10_000, description="Trials of a generation; null: 4 + 3 ln(dimensions)."
    )
    width: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Standard deviation of the first generation, as a share of each range.",
    )


def refuses(config: Config, space: Space) -> str:
    """Why it cannot search this space; "" where it can."""
    if any(dimension.kind != "choice" and not dimension.when for dimension in space):
        return ""
    return (
        "evolution needs a range of numbers that always takes part, and the space has choices "
        "and conditional ranges only."
    )


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """A sampler that computes the generations anew from the trials told."""
    from optuna.samplers import RandomSampler

    from danlu.search.samplers._optuna import (
        SamplerByNumber,
        from_optuna,
        position_of,
        trials_in,
        value_at,
    )

    ranges = [dimension for dimension in space if dimension.kind != "choice" and not dimension.when]
    idle = [0.5] if len(ranges) == 1 else []  # the algorithm is defined from two dimensions on
    sign = -1.0 if directions[0] == "higher" else 1.0

    def evolved(study: Study) -> CMA:
        """The state of the search after all whole generations."""
        from cmaes import CMA

        bounds = np.array([[0.0, 1.0]] * (len(ranges) + len(idle)))
        search = CMA(
            mean=np.full(len(bounds), 0.5),
            sigma=config.width,
            bounds=bounds,
            seed=study_seed % 2**32,
            population_size=config.population,
        )
        trials = trials_in(study)
        for first in range(0, len(trials) - search.population_size + 1, search.population_size):
            if search.should_stop():  # it has come to rest
                break
            generation = trials[first : first + search.population_size]
            points = [
                [
                    position_of(dimension, from_optuna(dimension, trial.params[dimension.name]))
                    for dimension in ranges
                ]
                + idle
                for trial in generation
            ]
            search.tell(
                [
                    (np.array(point), sign * trial.values[0])
                    for point, trial in zip(points, generation)
                ]
            )
        return search

    def choose(study: Study, number: int) -> Mapping[str, Any]:
        search = evolved(study)
        search.reseed_rng(seed % 2**32)
        shares = np.clip(search.ask(), 0.0, np.nextafter(1.0, 0.0))
        return {
            dimension.name: value_at(dimension, float(share))
            for dimension, share in zip(ranges, shares)
        }

    return SamplerByNumber(space, choose, RandomSampler(seed=(seed >> 20) % 2**32))
