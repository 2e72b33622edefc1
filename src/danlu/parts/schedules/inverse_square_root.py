"""The learning rate falls with the square root of the step, as for the first Transformer.

    scale(step) = 1 / sqrt(1 + step / timescale)

Steps are counted from the end of the warm-up. With `timescale` equal to the warm-up's steps this is
the paper's schedule. It does not depend on the number of steps.
Source: Vaswani and others, 2017, Attention Is All You Need, arXiv:1706.03762, section 5.3.
"""

from __future__ import annotations

import math

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the inverse square root schedule."""

    warmup: float = Field(
        0.05,
        ge=0,
        description="Steps of linear warm-up before the schedule; below 1 a share of all steps.",
    )
    timescale: float = Field(
        0.05,
        gt=0,
        description="Steps after which the fall begins; below 1 a share of the steps after the "
        "warm-up.",
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that falls from 1.

    >>> schedule = build(Config(timescale=100), 1000)
    >>> schedule(0), schedule(300)
    (1.0, 0.5)
    """
    timescale = (
        max(config.timescale * total_steps, 1.0) if config.timescale < 1 else config.timescale
    )
    return lambda step: 1 / math.sqrt(1 + step / timescale)
