"""Momentum: stochastic gradient descent along a decaying sum of gradients (heavy ball).

    b_t = momentum * b_{t-1} + g_t + weight_decay * p_{t-1}          b_0 = 0
    p_t = p_{t-1} - learning_rate * b_t

Along a constant gradient the sum grows to 1 / (1 - momentum) gradients, so the learning rate is
about a tenth of that of sgd.
Source: Polyak, 1964, USSR Computational Mathematics and Mathematical Physics 4(5), 1-17.
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
    """Options of momentum."""

    learning_rate: float = Field(0.01, ge=0, description="Factor on the decaying sum of gradients.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Decay of the sum of gradients per step.")
    weight_decay: float = Field(
        0.0, ge=0, description="Share of each weight added to its gradient (L2 penalty)."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """torch.optim.SGD with momentum over the groups, fused where torch can."""
    import torch

    return keep_layouts(
        without_dynamo(torch.optim.SGD)(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
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
    return parameter - options["learning_rate"] * total, {"sum": total}
