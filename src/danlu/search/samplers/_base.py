"""The contract of a sampler: what its module offers beside `Config`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from danlu.recipe import Space


class BuildSampler(Protocol):
    """build(config, space, directions, seed, study_seed): Optuna's sampler for one suggestion.

    `directions` says of each objective whether "higher" or "lower" is better. `seed` is a function
    of the study's seed and the trial's number, `study_seed` is the same for all trials; both are
    below 2**63.
    """

    def __call__(
        self, config: Any, space: Space, directions: Sequence[str], seed: int, study_seed: int, /
    ) -> BaseSampler: ...


@dataclass(frozen=True)
class SamplerFacts:
    """What a sampler says of itself. Each field is a module-level name of the part's file."""

    build: BuildSampler

    # size(config, space): how many different trials there are; the study ends with the last of
    # them. None: there is no bound.
    size: Callable[[Any, Space], int] | None = None

    # refuses(config, space): why the sampler cannot search this space; "" where it can. None: it
    # can search every space.
    refuses: Callable[[Any, Space], str] | None = None

    # False: the sampler has one objective only.
    several: bool = field(default=True, metadata={"name": "SEVERAL"})

    # False: suggestions do not depend on results, so any number of trials can run together.
    learns: bool = field(default=True, metadata={"name": "LEARNS"})
