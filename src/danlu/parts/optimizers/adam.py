"""Adam: a running mean of gradients over the root of one of their squares, both bias-corrected.

    d_t = g_t + weight_decay * p_{t-1}
    m_t = beta1 * m_{t-1} + (1 - beta1) * d_t                        m_0 = 0
    v_t = beta2 * v_{t-1} + (1 - beta2) * d_t^2                      v_0 = 0
    p_t = p_{t-1} - learning_rate * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + epsilon)

Its weight decay passes through the division, so it hardly shrinks weights with large gradients;
adamw does not have that flaw.
Source: Kingma and Ba, 2015, arXiv:1412.6980.
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
ELEMENTWISE = True


class Config(Options):
    """Options of Adam."""

    learning_rate: LearningRate = 0.001
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    epsilon: Epsilon = 1e-8
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.Adam over the groups, fused where torch can."""
    import torch

    return build_fused(
        torch.optim.Adam,
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
    gradient = gradient + options["weight_decay"] * parameter
    moved, state = step_of(gradient, state, step, options)
    return parameter - moved, state


__all__ = ["ELEMENTWISE", "UPDATE", "Config", "build", "initial", "update"]
