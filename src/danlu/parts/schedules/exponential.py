"""The learning rate falling by the same factor every step.

    scale(step) = final ^ (step / total_steps)

`final` would be reached one step after the last, so that the last update still learns.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the exponential schedule."""

    final: float = Field(
        0.01, gt=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Callable[[int], float]:
    """schedule(step) -> scale, falling from 1 to `final`."""
    return lambda step: config.final ** (min(step, total_steps) / total_steps)
