"""AdamW: Adam whose weight decay shrinks the weights directly, beside the gradient's update.

    m_t = beta1 * m_{t-1} + (1 - beta1) * g_t                        m_0 = 0
    v_t = beta2 * v_{t-1} + (1 - beta2) * g_t^2                      v_0 = 0
    q_t = (1 - learning_rate * weight_decay) * p_{t-1}
    p_t = q_t - learning_rate * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + epsilon)

The default where a recipe names no optimizer.
Source: Loshchilov and Hutter, 2019, arXiv:1711.05101.
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

UPDATE = "entry"
DECAY = "weights"

ELEMENTWISE = True  # each entry is moved by itself


class Config(Options):
    """Options of AdamW."""

    learning_rate: float = Field(
        0.001, ge=0, description="Length of the update of each weight, about."
    )
    beta1: float = Field(
        0.9, ge=0, lt=1, description="Share of the mean of gradients that is kept each step."
    )
    beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Share of the mean of squared gradients that is kept each step.",
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the root in the denominator.")
    weight_decay: float = Field(
        0.01, ge=0, description="Share of each weight taken off a step, times the learning rate."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.AdamW over the groups, fused where torch can."""
    import torch

    return keep_layouts(
        without_dynamo(torch.optim.AdamW)(
            groups,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=fusable(groups),
        )
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The means of gradients and of their squares, both 0."""
    import torch

    return {"mean": torch.zeros_like(parameter), "squares": torch.zeros_like(parameter)}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    beta1, beta2, learning_rate = options["beta1"], options["beta2"], options["learning_rate"]
    mean = beta1 * state["mean"] + (1 - beta1) * gradient
    squares = beta2 * state["squares"] + (1 - beta2) * gradient * gradient
    root = (squares / (1 - beta2**step)).sqrt() + options["epsilon"]
    shrunk = (1 - learning_rate * options["weight_decay"]) * parameter
    return shrunk - learning_rate * mean / (1 - beta1**step) / root, {
        "mean": mean,
        "squares": squares,
    }
