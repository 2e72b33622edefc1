"""The learning rate rises from 0 and falls back to 0 in cycles that double in length.

    progress    = step / total_steps
    scale(step) = (1 - cos(2 pi log2(1 + (2^cycles - 1) progress))) / 2

Each cycle ends with converged weights, the first after 1 / (2^cycles - 1) of all steps. So one
training holds short, middle and long ones, and the best evaluation among them is kept: rows that
are soon learnt by heart take an early end, others the last one.
Source: Holzmüller et al., 2024, arXiv:2407.04491 (coslog4: four cycles).
"""

from __future__ import annotations

import math

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the coslog schedule."""

    cycles: int = Field(4, ge=1, le=16, description="How often it rises and falls.")


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule between 0 and 1; the middle of a step counts, so that the first one moves. Cycles
    of fewer than two steps are left out."""
    cycles = max(1, min(config.cycles, int(math.log2(total_steps / 2 + 1))))
    growth = 2**cycles - 1

    def schedule(step: int) -> float:
        progress = min((step + 0.5) / total_steps, 1.0)
        return (1 - math.cos(2 * math.pi * math.log2(1 + growth * progress))) / 2

    return schedule
