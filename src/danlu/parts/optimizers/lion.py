"""Lion: every weight moves by the same length, by the sign of an average of gradients.

    u_t = sign(beta1 * m_{t-1} + (1 - beta1) * g_t)                  m_0 = 0
    p_t = (1 - learning_rate * weight_decay) * p_{t-1} - learning_rate * u_t
    m_t = beta2 * m_{t-1} + (1 - beta2) * g_t

Its state is half of Adam's. The authors use a learning rate 3 to 10 times smaller than AdamW's and
a weight decay larger by the same factor; the defaults here use a factor of 3.
Source: Chen and others, 2023, Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pydantic import Field

from danlu.compat.torch_optim import without_dynamo
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

UPDATE = "entry"
DECAY = "weights"
ELEMENTWISE = True


class Config(Options):
    """Options of Lion."""

    learning_rate: float = Field(3e-4, ge=0, description="Length of the update of each weight.")
    beta1: float = Field(
        0.9, ge=0, lt=1, description="Weight of past gradients in the average whose sign is used."
    )
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the running mean of gradients.")
    weight_decay: float = Field(
        0.03, ge=0, description="Share of each weight subtracted per step, times the learning rate."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """Lion over the groups, several tensors at a time (torch._foreach)."""
    return _lion()(
        groups,
        {
            "lr": config.learning_rate,
            "betas": (config.beta1, config.beta2),
            "weight_decay": config.weight_decay,
        },
    )


@functools.cache
def _lion() -> type[Optimizer]:
    """The optimizer class; defined on first use, so that a recipe is checked without torch."""
    import torch

    class Lion(torch.optim.Optimizer):
        """Lion as a torch optimizer; state: "mean", of the parameter's shape."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """One update; returns the loss that `closure` computes, None without one."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                parameters = [
                    parameter for parameter in group["params"] if parameter.grad is not None
                ]
                if not parameters:
                    continue
                gradients = [parameter.grad for parameter in parameters]
                means = [self._mean(parameter) for parameter in parameters]
                beta1, beta2 = group["betas"]
                moves = torch._foreach_lerp(means, gradients, 1 - beta1)
                torch._foreach_sign_(moves)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, moves, alpha=-group["lr"])
                torch._foreach_lerp_(means, gradients, 1 - beta2)
            return loss

        def _mean(self, parameter: Tensor) -> Tensor:
            state = self.state[parameter]
            if not state:
                state["mean"] = torch.zeros_like(parameter)
            return state["mean"]

    return without_dynamo(Lion)


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """The mean of gradients, 0."""
    import torch

    return {"mean": torch.zeros_like(parameter)}


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update."""
    mean, learning_rate = state["mean"], options["learning_rate"]
    move = (mean + (1 - options["beta1"]) * (gradient - mean)).sign()
    shrunk = (1 - learning_rate * options["weight_decay"]) * parameter
    return shrunk - learning_rate * move, {
        "mean": mean + (1 - options["beta2"]) * (gradient - mean)
    }
