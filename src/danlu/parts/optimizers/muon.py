"""Muon: momentum whose matrices are orthogonalized, with AdamW for all other parameters.

For a matrix of R rows and C columns, both at least 2:

    m_t = momentum * m_{t-1} + (1 - momentum) * g_t                  m_0 = 0
    u_t = momentum * m_t + (1 - momentum) * g_t                      (u_t = m_t without nesterov)
    o_t = newton_schulz(u_t)                                         singular values about 1
    q_t = (1 - learning_rate * weight_decay) * p_{t-1}
    p_t = q_t - learning_rate * 0.2 * sqrt(max(R, C)) * o_t

All singular directions of a layer are thus updated by the same amount. The factor 0.2 * sqrt(max(R,
C)) gives the update the size of AdamW's, so one learning rate and weight decay serve both. A
convolution kernel (out, in, height, width) counts as the matrix (out, in * height * width). AdamW
updates vectors, scalars, matrices with one row or column, and every parameter of a group with
`"muon": False`, as embeddings and output layers should have.
Source: Jordan and others, 2024, kellerjordan.github.io/posts/muon; Liu and others, 2025, Muon is
Scalable for LLM Training, arXiv:2502.16982."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from danlu.compat.torch_optim import without_dynamo
from danlu.parts.optimizers._adam import initial as initial_of_adam
from danlu.parts.optimizers._adam import step_of
from danlu.parts.optimizers._fused import fusable, keep_layouts
from danlu.recipe import Options

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import Optimizer

UPDATE = "matrix"
DECAY = "weights"
SPARES_TABLES = True  # AdamW updates embeddings and output layers: a batch moves single rows
# coefficients of Jordan's quintic: steep at 0, so that small singular values grow fast
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7


class Config(Options):
    """Options of Muon."""

    learning_rate: float = Field(
        0.002, ge=0, description="Length of the update, on the scale of AdamW."
    )
    momentum: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="Decay of the running mean of gradients (matrices).",
    )
    nesterov: bool = Field(
        True,
        description="Mix the newest gradient into the mean once more before orthogonalizing it.",
    )
    iterations: int = Field(
        5, ge=1, le=20, description="Newton-Schulz iterations that orthogonalize a matrix."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the iterations on float32 weights. auto: bfloat16 where "
        "it is faster.",
    )
    beta1: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="AdamW's decay of the running mean of gradients.",
    )
    beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="AdamW's decay of the running mean of squared gradients.",
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the root in AdamW's denominator.")
    weight_decay: float = Field(
        0.01, ge=0, description="Share of each weight subtracted per step, times the learning rate."
    )


def build(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """Muon over the groups: matrices of one shape are iterated together; the rest uses AdamW, fused
    where torch can."""
    options = config.model_dump(exclude={"learning_rate"})
    return keep_layouts(
        _muon()(
            groups, {"lr": config.learning_rate, **options, "muon": True, "fused": fusable(groups)}
        )
    )


@functools.cache
def _muon() -> type[Optimizer]:
    """The optimizer class; defined on first use, so that a recipe is checked without torch."""
    import torch
    from torch.optim.adamw import adamw

    class Muon(torch.optim.Optimizer):
        """Muon as a torch optimizer; state: "momentum_buffer" of matrices; "step", "exp_avg",
        "exp_avg_sq" of the rest."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """One update; returns the loss that `closure` computes, None without one."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                matrices: dict[Any, list[Tensor]] = {}
                rest: list[Tensor] = []
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    if group["muon"] and is_matrix(parameter):
                        key = (as_matrix(parameter).shape, parameter.dtype, parameter.device)
                        matrices.setdefault(key, []).append(parameter)
                    else:
                        rest.append(parameter)
                for alike in matrices.values():
                    self._turn(alike, group)
                if rest:
                    self._adamw(rest, group)
            return loss

        def _turn(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
            """Update matrices of one shape."""
            buffers = [
                self._state(tensor, "momentum_buffer")["momentum_buffer"] for tensor in parameters
            ]
            gradients = [tensor.grad for tensor in parameters if tensor.grad is not None]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            moves = (
                torch._foreach_lerp(gradients, buffers, group["momentum"])
                if group["nesterov"]
                else buffers
            )
            stacked = torch.stack([as_matrix(tensor) for tensor in moves])
            turned = newton_schulz(
                stacked, group["iterations"], iteration_dtype(stacked, group["precision"])
            )
            moves = [
                tensor.reshape(parameter.shape)
                for tensor, parameter in zip(turned.to(stacked.dtype), parameters)
            ]
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, moves, alpha=-group["lr"] * length(stacked))

        def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
            """Update all other parameters."""
            states = [self._state(tensor, "exp_avg", "exp_avg_sq") for tensor in parameters]
            for parameter, state in zip(parameters, states):
                if "step" not in state:
                    state["step"] = torch.zeros(
                        (), device=parameter.device if group["fused"] else "cpu"
                    )
            adamw(
                parameters,
                [tensor.grad for tensor in parameters if tensor.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=group["fused"],
                amsgrad=False,
                beta1=group["beta1"],
                beta2=group["beta2"],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["epsilon"],
                maximize=False,
            )

        def _state(self, parameter: Tensor, *names: str) -> dict[str, Any]:
            state = self.state[parameter]
            for name in names:
                if name not in state:
                    state[name] = torch.zeros_like(parameter)
            return state

    return without_dynamo(Muon)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon orthogonalizes its update: at least 2 dimensions, and as a matrix at least 2
    rows and 2 columns."""
    return parameter.ndim >= 2 and parameter.shape[0] >= 2 and math.prod(parameter.shape[1:]) >= 2


def as_matrix(parameter: Tensor) -> Tensor:
    """A view as (R, C): a kernel's input channels, height and width become one dimension."""
    return parameter.reshape(parameter.shape[0], -1)


def length(matrix: Tensor) -> float:
    """The factor that gives an orthogonal (..., R, C) the size of AdamW's update."""
    return 0.2 * math.sqrt(max(matrix.shape[-2:]))


def iteration_dtype(matrix: Tensor, precision: str) -> torch.dtype:
    """The dtype of the iterations; float64 weights stay float64."""
    import torch

    if matrix.dtype != torch.float32 or precision == "float32":
        return matrix.dtype
    return (
        torch.bfloat16
        if precision == "bfloat16" or _multiplies_bfloat16(matrix.device.type)
        else torch.float32
    )


@functools.cache
def _multiplies_bfloat16(device: str) -> bool:
    """Whether bfloat16 matrices multiply faster than float32: 3 to 4 times as fast with
    avx512_bf16, measured at 256 x 256."""
    import torch

    if device == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def newton_schulz(matrices: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
    """Nearly orthogonal matrices close to `matrices` (N, R, C), in `dtype`.

    Repeats x <- a x + (b x x' + c (x x')^2) x.
    """
    import torch

    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # so that x x' is the smaller square
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """Zeros: the mean of gradients for a matrix, and of their squares too for all others."""
    import torch

    if is_matrix(parameter):
        return {"mean": torch.zeros_like(parameter)}
    return initial_of_table(parameter)


def initial_of_table(parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state of an embedding table or a vector."""
    return initial_of_adam(parameter)


def update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Tensor]]:
    """(parameter, state) after one update; nesterov, iterations and precision are plain values,
    not tensors."""
    learning_rate = options["learning_rate"]
    shrunk = (1 - learning_rate * options["weight_decay"]) * parameter
    if "squares" in state:
        moved, state = step_of(gradient, state, step, options)
        return shrunk - moved, state
    momentum = options["momentum"]
    mean = momentum * state["mean"] + (1 - momentum) * gradient
    move = momentum * mean + (1 - momentum) * gradient if options["nesterov"] else mean
    matrix = as_matrix(move).unsqueeze(0)
    turned = newton_schulz(
        matrix, options["iterations"], iteration_dtype(matrix, options["precision"])
    )
    turned = turned.to(parameter.dtype).reshape(parameter.shape)
    return shrunk - learning_rate * length(matrix) * turned, {"mean": mean}
