"""The learning rate falling with the root of the step, as the first Transformer was trained.

    scale(step) = 1 / sqrt(1 + step / timescale)

Counted from the end of the warm-up. With `timescale` equal to the warm-up's steps it is the paper's
schedule; it needs no end.
Source: Vaswani and others, 2017, Attention Is All You Need, arXiv:1706.03762, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import Field

from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the inverse square root schedule."""

    warmup: float = Field(
        0.05,
        ge=0,
        description="Steps of linear warm-up before the schedule; below 1 it is a share of all steps.",
    )
    timescale: float = Field(
        0.05,
        gt=0,
        description="Steps after which the fall sets in; below 1 it is a share of the steps after the warm-up.",
    )


def build(config: Config, total_steps: int) -> Callable[[int], float]:
    """schedule(step) -> scale, falling from 1."""
    timescale = (
        max(config.timescale * total_steps, 1.0) if config.timescale < 1 else config.timescale
    )
    return lambda step: 1 / math.sqrt(1 + step / timescale)
