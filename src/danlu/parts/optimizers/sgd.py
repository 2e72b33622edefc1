"""Stochastic gradient descent: one update from the gradient over a batch.

    g_t = gradient of the mean loss over batch t, at p_{t-1}
    p_t = p_{t-1} - learning_rate * (g_t + weight_decay * p_{t-1})

It converges only when the learning rate goes to 0 (schedules linear, cosine, ...); otherwise it
keeps moving around the minimum.
Source: Robbins and Monro, 1951, Annals of Mathematical Statistics 22, 400-407.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from danlu.compat.torch_optim import without_dynamo
from danlu.parts.optimizers._fused import fusable, keep_layouts
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

UPDATE = "gradient"
ELEMENTWISE = True


class Config(Options):
    """Options of stochastic gradient descent."""

    learning_rate: float = Field(0.1, ge=0, description="Factor on the gradient.")
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.SGD without momentum over the groups, fused where torch can."""
    import torch

    return keep_layouts(
        without_dynamo(torch.optim.SGD)(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fusable(groups)
        )
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """No state."""
    return {}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    gradient = gradient + options["weight_decay"] * parameter
    return parameter - options["learning_rate"] * gradient, state
