"""One cycle: the learning rate rises to its full value, then falls to almost 0, as cosines.

    top         = rise * total_steps
    scale(step) = from `start` up to 1 while step < top, then down to `final` at total_steps

The rise serves as warm-up, so leave `warmup` at 0. Where both are set, the warm-up rises from 0 to
`start` first, and the cycle takes the remaining steps. Momentum does not change in the opposite
direction, which the paper proposes for sgd.
Source: Smith and Topin, 2018, Super-Convergence, arXiv:1708.07120.
"""

from __future__ import annotations

import math

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the one-cycle schedule."""

    rise: float = Field(
        0.3, gt=0, lt=1, description="Share of the steps over which the learning rate rises."
    )
    start: float = Field(
        0.04, ge=0, le=1, description="Share of the learning rate at the first step."
    )
    final: float = Field(
        4e-6, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that rises from `start` to 1 and falls to `final`."""
    # a whole step, so that one update uses the full learning rate
    top = int(config.rise * total_steps)

    def schedule(step: int) -> float:
        if step < top:
            low, progress = config.start, 1 - step / top
        else:
            low, progress = config.final, (min(step, total_steps) - top) / (total_steps - top)
        return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2

    return schedule
