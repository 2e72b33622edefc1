"""The learning rate as it is, from the first step to the last.

scale(step) = 1
"""

from __future__ import annotations

from collections.abc import Callable

from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the constant schedule."""


def build(config: Config, total_steps: int) -> Callable[[int], float]:
    """schedule(step) -> 1.0."""
    return lambda step: 1.0
