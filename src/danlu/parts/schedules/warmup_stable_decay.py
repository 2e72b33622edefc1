"""Warm-up, a long phase at the full learning rate, and a decay at the end.

    start       = (1 - decay) * total_steps
    progress    = (step - start) / (total_steps - start)             0 before start
    scale(step) = final + (1 - final) * fall(progress)
    fall(x)     = 1 - x (linear), 1 - sqrt(x) (square_root), (1 + cos(pi x)) / 2 (cosine)

The length of training need not be known before the decay begins, so one run serves several lengths.
The square root is the best of the three shapes in the second paper.
Source: Hu and others, 2024, MiniCPM, arXiv:2404.06395; Hägele and others, 2024, arXiv:2405.18392.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from danlu.parts.schedules._base import Schedule
from danlu.recipe import ScheduleOptions


class Config(ScheduleOptions):
    """Options of the warmup-stable-decay schedule."""

    warmup: float = Field(
        0.05,
        ge=0,
        description="Steps of linear warm-up before the schedule; below 1 a share of all steps.",
    )
    decay: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of the steps after the warm-up over which the learning rate falls.",
    )
    shape: Literal["linear", "square_root", "cosine"] = Field(
        "square_root", description="The shape of the decay."
    )
    final: float = Field(
        0.0, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )


def build(config: Config, total_steps: int) -> Schedule:
    """A Schedule that is 1 and then falls to `final`."""
    start = min(total_steps - max(round(config.decay * total_steps), 1), total_steps - 1)

    def schedule(step: int) -> float:
        progress = max(min(step, total_steps) - start, 0) / (total_steps - start)
        fall = {
            "linear": 1 - progress,
            "square_root": 1 - math.sqrt(progress),
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
        }[config.shape]
        return config.final + (1 - config.final) * fall

    return schedule
