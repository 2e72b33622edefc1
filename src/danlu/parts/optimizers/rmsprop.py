"""RMSprop: the gradient over the square root of a running mean of its squares.

    d_t = g_t + weight_decay * p_{t-1}
    v_t = alpha * v_{t-1} + (1 - alpha) * d_t^2                      v_0 = 0
    b_t = momentum * b_{t-1} + d_t / (sqrt(v_t) + epsilon)           b_0 = 0
    p_t = p_{t-1} - learning_rate * b_t

The centred variant is left out: on a constant gradient the variance in its denominator rounds below
0, and the root is NaN.
Source: Tieleman and Hinton, 2012, Neural Networks for Machine Learning, lecture 6.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from danlu.compat.torch_optim import without_dynamo
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

UPDATE = "entry"
ELEMENTWISE = True


class Config(Options):
    """Options of RMSprop."""

    learning_rate: float = Field(
        0.001, ge=0, description="About the length of each weight's update."
    )
    alpha: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay of the running mean of squared gradients.",
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the root in the denominator.")
    momentum: float = Field(
        0.0, ge=0, lt=1, description="Decay of the sum of scaled gradients per step."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.RMSprop over the groups; torch has no fused form, only one over several
    tensors."""
    import torch

    return without_dynamo(torch.optim.RMSprop)(
        groups,
        lr=config.learning_rate,
        alpha=config.alpha,
        eps=config.epsilon,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The mean of squared gradients and the sum of scaled ones, both 0."""
    import torch

    return {"squares": torch.zeros_like(parameter), "sum": torch.zeros_like(parameter)}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    gradient = gradient + options["weight_decay"] * parameter
    squares = options["alpha"] * state["squares"] + (1 - options["alpha"]) * gradient * gradient
    total = options["momentum"] * state["sum"] + gradient / (squares.sqrt() + options["epsilon"])
    return parameter - options["learning_rate"] * total, {"squares": squares, "sum": total}
