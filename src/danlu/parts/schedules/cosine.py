"""The learning rate falls along half a cosine: slow, fast, slow; optionally with warm restarts.

    progress    = (cycles * step / total_steps) mod 1
    scale(step) = final + (1 - final) * (1 + cos(pi * progress)) / 2

`final` would be reached one step after the last step, so that the last update still has an effect.
Source: Loshchilov and Hutter, 2017, SGDR, arXiv:1608.03983.
"""

from __future__ import annotations

import math

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the cosine schedule."""

    final: float = Field(
        0.0, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )
    cycles: int = Field(
        1,
        ge=1,
        description="How often it falls; each cycle starts again at the full learning rate.",
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that falls from 1 to `final` in each cycle."""

    def schedule(step: int) -> float:
        # in integers, so that a restart falls on its step exactly
        turns, rest = divmod(config.cycles * min(step, total_steps), total_steps)
        progress = 1.0 if turns == config.cycles else rest / total_steps
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2

    return schedule
