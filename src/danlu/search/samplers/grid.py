"""Grid search: every combination of choices, steps and points, in an order drawn once.

A float range without a step gives `points` values (equally spaced in their logarithm where the
space says so). A dimension that takes no part does not multiply the grid. The study ends with the
grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.recipe import Dimension, Options, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

_MAX_POINTS = 1_000_000  # combinations
_MAX_COUNTED = 20_000  # conditions on other dimensions make a grid that is counted case by case


LEARNS = False


class Config(Options):
    """How fine the grid is."""

    points: int = Field(
        5,
        ge=2,
        le=1000,
        description="Points of a range of numbers without a step, both ends among them.",
    )
    shuffle: bool = Field(
        True,
        description="In an order drawn by the study's seed, so that the first trials are spread "
        "over the whole grid.",
    )


class _Steps(Sequence[Any]):
    """The values of a range with a step, each computed when it is read: they may be very many."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.size = dimension.grid_size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        return self.dimension.at(range(self.size)[index])


def _points(config: Config, dimension: Dimension) -> Sequence[Any]:
    """The values of one dimension on the grid."""
    if dimension.kind == "choice":
        return dimension.choices
    if dimension.step is not None:
        return _Steps(dimension)
    low, high = dimension.low, dimension.high
    if dimension.kind == "integer" and high - low < config.points:
        return range(int(low), int(high) + 1)
    shares = [number / (config.points - 1) for number in range(config.points)]
    if dimension.log:
        values = [
            math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares
        ]
    else:
        values = [low + share * (high - low) for share in shares]
    values = [min(max(value, low), high) for value in values]
    values[0], values[-1] = low, high
    return sorted({round(value) for value in values}) if dimension.kind == "integer" else values


def _combinations(
    config: Config, space: Space, values: dict[str, Any] | None = None, index: int = 0
) -> Iterator[dict[str, Any]]:
    """Every point of the grid, as values by name; the last dimension changes fastest."""
    values = values or {}
    if index == len(space):
        yield values
        return
    dimension = space[index]
    if not dimension.active(values):
        yield from _combinations(config, space, values, index + 1)
        return
    for value in _points(config, dimension):
        yield from _combinations(config, space, {**values, dimension.name: value}, index + 1)


def size(config: Config, space: Space) -> int:
    """How many points the grid has. Raises OverflowError where conditions give so many cases that
    they are not counted.

    >>> from danlu.recipe import Dimension
    >>> space = [Dimension("a", "float", low=0, high=1), Dimension("b", "choice", choices=(1, 2))]
    >>> size(Config(points=3), space)
    6
    """
    needed = {name for dimension in space for name in dimension.when}
    cases = iter(range(_MAX_COUNTED))

    def count(index: int, values: dict[str, Any]) -> int:
        if next(cases, None) is None:
            raise OverflowError("the grid has too many cases")
        if index == len(space):
            return 1
        dimension = space[index]
        if not dimension.active(values):
            return count(index + 1, values)
        points = _points(config, dimension)
        if dimension.name not in needed:
            return len(points) * count(index + 1, values)
        return sum(count(index + 1, {**values, dimension.name: value}) for value in points)

    return count(0, {})


def refuses(config: Config, space: Space) -> str:
    """Why this space is too large for a grid; "" where it is not."""
    try:
        points = size(config, space)
    except OverflowError:
        return (
            "its conditions (when) make more cases than are counted, so leave some out, or choose "
            "another sampler."
        )
    return (
        f"the grid has {points:,} points; at most {_MAX_POINTS:,} are possible, so give fewer "
        "points or longer steps."
        if points > _MAX_POINTS
        else ""
    )


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """A sampler that gives trial n the n-th point of the grid."""
    from optuna.samplers import RandomSampler

    from danlu.search.samplers._optuna import SamplerByNumber

    def choose(study: Study, number: int) -> Mapping[str, Any]:
        count = size(config, space)
        index = number % count
        if config.shuffle:
            index = int(np.random.default_rng(study_seed).permutation(count)[index])
        return next(values for at, values in enumerate(_combinations(config, space)) if at == index)

    return SamplerByNumber(space, choose, RandomSampler(seed=seed % 2**32))
