"""AdamW: Adam whose weight decay shrinks the weights directly, separately from the gradient.

    m_t = beta1 * m_{t-1} + (1 - beta1) * g_t                        m_0 = 0
    v_t = beta2 * v_{t-1} + (1 - beta2) * g_t^2                      v_0 = 0
    q_t = (1 - learning_rate * weight_decay) * p_{t-1}
    p_t = q_t - learning_rate * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + epsilon)

The default optimizer.
Source: Loshchilov and Hutter, 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from danlu.parts.optimizers._adam import (
    Beta1,
    Beta2,
    Epsilon,
    LearningRate,
    build_fused,
    initial,
    step_of,
)
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

UPDATE = "entry"
DECAY = "weights"
ELEMENTWISE = True


class Config(Options):
    """Options of AdamW."""

    learning_rate: LearningRate = 0.001
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    epsilon: Epsilon = 1e-8
    weight_decay: float = Field(
        0.01, ge=0, description="Share of each weight subtracted per step, times the learning rate."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.AdamW over the groups, fused where torch can."""
    import torch

    return build_fused(
        torch.optim.AdamW,
        groups,
        learning_rate=config.learning_rate,
        betas=(config.beta1, config.beta2),
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
    )


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    moved, state = step_of(gradient, state, step, options)
    shrunk = (1 - options["learning_rate"] * options["weight_decay"]) * parameter
    return shrunk - moved, state


__all__ = ["DECAY", "ELEMENTWISE", "UPDATE", "Config", "build", "initial", "update"]
