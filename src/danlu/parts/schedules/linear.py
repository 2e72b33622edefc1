"""The learning rate falls linearly.

    scale(step) = 1 - (1 - final) * step / total_steps

`final` would be reached one step after the last step, so that the last update still has an effect.
"""

from __future__ import annotations

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the linear schedule."""

    final: float = Field(
        0.0, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that falls from 1 to `final`.

    >>> schedule = build(Config(), 4)
    >>> [schedule(step) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    return lambda step: 1 - (1 - config.final) * min(step, total_steps) / total_steps
