"""The learning rate is multiplied by a factor every `every` steps.

scale(step) = factor ^ floor(step / every)
"""

from __future__ import annotations

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the step schedule."""

    every: float = Field(
        0.3,
        gt=0,
        description="Steps between drops; below 1 a share of the steps after the warm-up.",
    )
    factor: float = Field(0.1, gt=0, le=1, description="Factor on the learning rate at each drop.")


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that falls from 1 in jumps.

    >>> schedule = build(Config(every=2, factor=0.5), 6)
    >>> [schedule(step) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    every = max(round(config.every * total_steps if config.every < 1 else config.every), 1)
    return lambda step: config.factor ** (step // every)
