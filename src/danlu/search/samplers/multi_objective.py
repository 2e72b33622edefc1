"""Search for several objectives at once: the genetic algorithm NSGA-II, or TPE.

NSGA-II breeds each generation from those trials that no other trial beats in every objective. For
one objective it is an ordinary genetic algorithm. Trials before the first complete generation are
random.

Source: Deb et al., 2002, IEEE Transactions on Evolutionary Computation 6(2), 182-197; for tpe Ozaki
et al., 2022, JAIR 73, 1209-1250.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.recipe import Options, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler, NSGAIISampler
    from optuna.trial import FrozenTrial


class Config(Options):
    """How a generation is bred."""

    method: Literal["nsga2", "tpe"] = Field(
        "nsga2", description="nsga2: by breeding; tpe: by densities of the trials that none beats."
    )
    population: int = Field(
        24,
        ge=2,
        le=10_000,
        description="Trials of a generation; with tpe: random trials at the start.",
    )
    crossover: float = Field(
        0.9, ge=0, le=1, description="Probability that a child has two parents."
    )
    swapping: float = Field(
        0.5, ge=0, le=1, description="Probability that an option comes from the second parent."
    )


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """Optuna's NSGA-II or TPE sampler."""
    import warnings

    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import NSGAIISampler, TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.method == "tpe":
            return TPESampler(
                n_startup_trials=config.population,
                seed=seed % 2**32,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        return _without_stored_parents(NSGAIISampler)(
            population_size=config.population,
            crossover_prob=config.crossover,
            swapping_prob=config.swapping,
            seed=seed % 2**32,
        )


def _without_stored_parents(kind: type[NSGAIISampler]) -> type[NSGAIISampler]:
    """A subclass that computes the parents of each generation from the trials told; the original
    stores them beside the study."""

    class Anew(kind):  # type: ignore[misc, valid-type]
        def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
            parents: dict[int, list[FrozenTrial]] = vars(self).setdefault("_parents", {0: []})  # type: ignore[attr-defined]
            for earlier in range(1, generation + 1):
                if earlier not in parents:
                    parents[earlier] = sorted(
                        self.select_parent(study, earlier), key=lambda trial: trial.number
                    )
            return parents[generation]

    return Anew
