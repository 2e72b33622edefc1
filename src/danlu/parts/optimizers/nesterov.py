"""Nesterov momentum: momentum that anticipates its next step.

    d_t = g_t + weight_decay * p_{t-1}
    b_t = momentum * b_{t-1} + d_t                                   b_0 = 0
    p_t = p_{t-1} - learning_rate * (d_t + momentum * b_t)

This is the form of Sutskever and others, in which p is the point where the gradient is computed.
Source: Nesterov, 1983, Soviet Mathematics Doklady 27, 372-376; Sutskever and others, 2013, ICML
(PMLR 28(3), 1139-1147)."""

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
    """Options of Nesterov momentum."""

    learning_rate: float = Field(0.01, ge=0, description="Factor on the decaying sum of gradients.")
    momentum: float = Field(0.9, gt=0, lt=1, description="Decay of the sum of gradients per step.")
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.SGD with Nesterov momentum over the groups, fused where torch can."""
    import torch

    return keep_layouts(
        without_dynamo(torch.optim.SGD)(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=True,
            weight_decay=config.weight_decay,
            fused=fusable(groups),
        )
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The sum of gradients, 0."""
    import torch

    return {"sum": torch.zeros_like(parameter)}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    gradient = gradient + options["weight_decay"] * parameter
    total = options["momentum"] * state["sum"] + gradient
    ahead = gradient + options["momentum"] * total
    return parameter - options["learning_rate"] * ahead, {"sum": total}
