"""A constant learning rate.

scale(step) = 1
"""

from __future__ import annotations

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the constant schedule."""


def build(config: Config, total_steps: int) -> Schedule:
    """schedule(step) -> 1.0."""
    return lambda step: 1.0
