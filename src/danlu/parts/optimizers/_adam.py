"""What Adam, AdamW and Muon share: options, the torch optimizer, and the step of the pure rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from danlu.compat.torch_optim import without_dynamo
from danlu.parts.optimizers._fused import fusable, keep_layouts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Adam, Optimizer

LearningRate = Annotated[
    float, Field(ge=0, description="About the length of each weight's update.")
]
Beta1 = Annotated[float, Field(ge=0, lt=1, description="Decay of the running mean of gradients.")]
Beta2 = Annotated[
    float, Field(ge=0, lt=1, description="Decay of the running mean of squared gradients.")
]
Epsilon = Annotated[float, Field(gt=0, description="Added to the root in the denominator.")]


def build_fused(
    optimizer: type[Adam],
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> Optimizer:
    """torch.optim.Adam or AdamW over the groups, fused where torch can."""
    return keep_layouts(
        without_dynamo(optimizer)(
            groups,
            lr=learning_rate,
            betas=betas,
            eps=epsilon,
            weight_decay=weight_decay,
            fused=fusable(groups),
        )
    )


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The running means of gradients and of their squares, both 0."""
    import torch

    return {"mean": torch.zeros_like(parameter), "squares": torch.zeros_like(parameter)}


def step_of(
    gradient: Tensor, state: dict[str, Tensor], step: int, options: dict[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(what is subtracted from the parameter, the state after it).

    learning_rate * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + epsilon), t counted from 1.
    """
    beta1, beta2 = options["beta1"], options["beta2"]
    mean = beta1 * state["mean"] + (1 - beta1) * gradient
    squares = beta2 * state["squares"] + (1 - beta2) * gradient * gradient
    root = (squares / (1 - beta2**step)).sqrt() + options["epsilon"]
    moved = options["learning_rate"] * mean / (1 - beta1**step) / root
    return moved, {"mean": mean, "squares": squares}
