"""Cross-entropy over tokens, with half the passes over the logits that torch's own makes.

N tokens of all rows, V classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from danlu.compat.torch_vmap import under_vmap
from danlu.terms import IGNORED


def token_cross_entropy(
    logits_NV: Tensor, target_N: Tensor, weights_V: Tensor | None, label_smoothing: float
) -> Tensor:
    """The cross-entropy summed over tokens, a float32 scalar. Tokens whose target is IGNORED add
    nothing and get no gradient.

    Smoothing and weights are those of torch.nn.functional.cross_entropy. Without weights on the CPU
    this is 2 to 3 times as fast: the gradient is computed in place of the log-probabilities, and
    where most tokens are IGNORED (masked language modelling) only the others are computed. The
    gradient can then be taken only once."""
    if under_vmap():
        return gathered_cross_entropy(logits_NV, target_N, weights_V, label_smoothing)
    if weights_V is not None or logits_NV.device.type != "cpu":
        return cross_entropy(
            logits_NV,
            target_N,
            weights_V,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    asked_N = target_N != IGNORED
    if bool(asked_N.all()):
        return _Summed.apply(logits_NV, target_N, label_smoothing)  # type: ignore[no-any-return]
    scored = asked_N.nonzero()[:, 0]
    return _Summed.apply(
        logits_NV.index_select(0, scored), target_N.index_select(0, scored), label_smoothing
    )  # type: ignore[no-any-return]


def gathered_cross_entropy(
    logits_NV: Tensor, target: Tensor, weights_V: Tensor | None, label_smoothing: float
) -> Tensor:
    """The sum of torch's own cross-entropy, by operators that torch.func.vmap runs for all models
    at once.

    `target` holds classes (N,), IGNORED where a token does not count, or probabilities (N, V)."""
    log_NV = logits_NV.log_softmax(dim=1)
    count = logits_NV.shape[1]
    if target.is_floating_point():
        mixed_NV = (1 - label_smoothing) * target + label_smoothing / count
        return -(mixed_NV * log_NV if weights_V is None else mixed_NV * log_NV * weights_V).sum()
    class_N = target.clamp(min=0)
    total_N = log_NV.gather(1, class_N[:, None])[:, 0] * (label_smoothing - 1)
    if weights_V is not None:
        total_N = total_N * weights_V[class_N]
    if label_smoothing:
        spread_N = (log_NV if weights_V is None else log_NV * weights_V).sum(1)
        total_N = total_N - label_smoothing / count * spread_N
    return total_N.masked_fill(target == IGNORED, 0.0).sum()


class _Summed(torch.autograd.Function):
    """sum_n -(1 - s) log p_n[target_n] - s mean_c log p_n[c], with its gradient p - (1 - s) one_hot
    - s / V."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, target_N: Tensor, smoothing: float) -> Tensor:
        log_NV = logits_NV.log_softmax(dim=1)
        ctx.save_for_backward(log_NV, target_N)
        ctx.smoothing = smoothing
        right = log_NV.gather(1, target_N[:, None]).sum()
        if not smoothing:
            return -right
        return -(1 - smoothing) * right - smoothing / log_NV.shape[1] * log_NV.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        log_NV, target_N = ctx.saved_tensors
        gradient_NV = (
            log_NV.exp_()
        )  # in place: autograd notices the change and refuses a second backward pass
        if ctx.smoothing:
            gradient_NV.sub_(ctx.smoothing / log_NV.shape[1])
        gradient_NV.scatter_add_(
            1, target_N[:, None], gradient_NV.new_full((len(target_N), 1), ctx.smoothing - 1.0)
        )
        return gradient_NV.mul_(grad_outputs[0]), None, None
