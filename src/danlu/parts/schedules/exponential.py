"""The learning rate falls by the same factor every step.

    scale(step) = final ^ (step / total_steps)

`final` would be reached one step after the last step, so that the last update still has an effect.
"""

from __future__ import annotations

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the exponential schedule."""

    final: float = Field(
        0.01, gt=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that falls from 1 to `final`.

    >>> schedule = build(Config(final=0.01), 10)
    >>> schedule(0), schedule(5), schedule(10)
    (1.0, 0.1, 0.01)
    """
    return lambda step: config.final ** (min(step, total_steps) / total_steps)
