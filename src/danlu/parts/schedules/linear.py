"""The learning rate falling along a straight line.

    scale(step) = 1 - (1 - final) * step / total_steps

`final` would be reached one step after the last, so that the last update still learns.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the linear schedule."""

    final: float = Field(
        0.0, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Callable[[int], float]:
    """schedule(step) -> scale, falling from 1 to `final`."""
    return lambda step: 1 - (1 - config.final) * min(step, total_steps) / total_steps
