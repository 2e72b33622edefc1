"""Adagrad: each weight's learning rate falls with the sum of its past squared gradients.

    d_t = g_t + weight_decay * p_{t-1}
    s_t = s_{t-1} + d_t^2                                            s_0 = 0
    p_t = p_{t-1} - learning_rate * d_t / (sqrt(s_t) + epsilon)

Suits sparse inputs. In long trainings the learning rate falls towards 0, which rmsprop avoids.
Source: Duchi, Hazan and Singer, 2011, JMLR 12, 2121-2159.
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
ELEMENTWISE = True


class Config(Options):
    """Options of Adagrad."""

    learning_rate: float = Field(
        0.01, ge=0, description="Length of the first update of each weight."
    )
    epsilon: float = Field(1e-10, gt=0, description="Added to the root in the denominator.")
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.Adagrad over the groups, fused where torch can."""
    import torch

    return keep_layouts(
        without_dynamo(torch.optim.Adagrad)(
            groups,
            lr=config.learning_rate,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=fusable(groups),
        )
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The sum of squared gradients, 0."""
    import torch

    return {"squares": torch.zeros_like(parameter)}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    gradient = gradient + options["weight_decay"] * parameter
    squares = state["squares"] + gradient * gradient
    parameter = parameter - options["learning_rate"] * gradient / (
        squares.sqrt() + options["epsilon"]
    )
    return parameter, {"squares": squares}
