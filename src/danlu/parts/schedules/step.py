"""The learning rate multiplied by a factor every so many steps.

scale(step) = factor ^ floor(step / every)
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the step schedule."""

    every: float = Field(
        0.3,
        gt=0,
        description="Steps between drops; below 1 it is a share of the steps after the warm-up.",
    )
    factor: float = Field(
        0.1, gt=0, le=1, description="What the learning rate is multiplied by at each drop."
    )


def build(config: Config, total_steps: int) -> Callable[[int], float]:
    """schedule(step) -> scale, falling from 1 in jumps."""
    every = max(round(config.every * total_steps if config.every < 1 else config.every), 1)
    return lambda step: config.factor ** (step // every)
