"""The formulas of an update, written once for one model and for a stack of K models.

`step/update.py` calls them for one model, `population/` for a stack. What a recipe sets (a penalty,
a limit) is a float for one model and a tensor (K,) with one value per model for a stack, whose
tensors are (K, ...). Only these functions divide a loss or change a gradient or an average.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from danlu.compat.torch_foreach import foreach

# One value for one model, or (K,), one value per model of a stack.
PerModel = float | Tensor


def mean_share(count: Tensor) -> Tensor:
    """1 / count, the weight of a loss that is summed over rows: `backward` of the sum with this
    weight gives the gradient of the mean.

    >>> mean_share(torch.tensor(4.0))
    tensor(0.2500)
    """
    return count.reciprocal()


def reported_loss(
    total: Tensor, count: Tensor, rows: int, *, stacked: bool = False
) -> tuple[Tensor, Tensor]:
    """(sum, count) of a loss as they are reported. For several tasks: the sum of their means, times
    the rows of the batch.

    >>> reported_loss(torch.tensor([6.0, 4.0]), torch.tensor([3.0, 4.0]), 8)
    (tensor(24.), tensor(8.))
    """
    models = int(stacked)  # leading dimensions that count models
    if total.ndim == models:
        return total, count
    sums = (total / count).flatten(models).sum(-1) * rows
    return sums, torch.full_like(sums, float(rows))


def learning_rate_scale(group: Mapping[str, object]) -> float:
    """The factor on the learning rate of a parameter group; 1 where the group sets none.

    >>> learning_rate_scale({"params": [], "learning_rate_scale": 0.5})
    0.5
    """
    scale = group.get("learning_rate_scale", 1.0)
    assert isinstance(scale, int | float)
    return float(scale)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the learning rate, times the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * learning_rate_scale(group)


def add_penalties(
    gradients: list[Tensor], weights: list[Tensor], l1: PerModel, l2: PerModel
) -> None:
    """gradient += l2 * weight + l1 * sign(weight), in place: the gradients of the penalties
    l2 / 2 * sum(weight^2) and l1 * sum(|weight|).

    The caller leaves biases and norms out, whose size says nothing of a model's complexity.

    >>> gradient = torch.zeros(2)
    >>> add_penalties([gradient], [torch.tensor([3.0, -2.0])], l1=1.0, l2=0.5)
    >>> gradient
    tensor([ 2.5000, -2.0000])
    """
    with torch.no_grad():
        _add_scaled(gradients, weights, l2)
        _add_scaled(gradients, foreach.sign(weights), l1)


def _add_scaled(sums: list[Tensor], tensors: list[Tensor], factor: PerModel) -> None:
    if isinstance(factor, Tensor):
        foreach.add_(sums, foreach.mul(tensors, columns(factor, tensors)))
    elif factor:
        foreach.add_(sums, tensors, factor)


def clip_values(gradients: list[Tensor], limit: PerModel) -> None:
    """Clamp every entry to [-limit, limit], in place; infinity clamps nothing.

    >>> gradient = torch.tensor([3.0, -0.5])
    >>> clip_values([gradient], 1.0)
    >>> gradient
    tensor([ 1.0000, -0.5000])
    """
    with torch.no_grad():
        if isinstance(limit, Tensor):
            most = columns(limit, gradients)
            foreach.clamp_(gradients, [-column for column in most], most)
        else:
            foreach.clamp_(gradients, -limit, limit)


def clip_norm(gradients: list[Tensor], limit: PerModel) -> None:
    """Scale the gradients of a model down, in place, so that all of them together are no longer
    than `limit`; infinity scales nothing.

    As torch.nn.utils.clip_grad_norm_, to the bit.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_norm([gradient], 1.0)
    >>> gradient
    tensor([0.6000, 0.8000])
    """
    if not gradients:
        return
    with torch.no_grad():
        if isinstance(limit, Tensor):
            norms = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
            foreach.mul_(gradients, columns(_norm_share(norms, limit), gradients))
        else:
            foreach.mul_(gradients, _norm_share(foreach.norm(gradients), limit))


def _norm_share(norms: list[Tensor], limit: PerModel) -> Tensor:
    """What the gradients are multiplied by, () or (K,), at most 1; `norms` are those of the
    tensors."""
    length: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)  # pyright: ignore[reportUnknownMemberType]
    return (limit / (length + 1e-6)).clamp(max=1.0)


def average_share(decay: float, updates: int) -> float:
    """How far a weight average moves towards the weights, in [0, 1], `updates` updates in.

    1 - decay in the long run. Early on the average follows faster; it would otherwise carry the
    random initial weights for 1 / (1 - decay) updates.
    Source: the warm-up of tf.train.ExponentialMovingAverage.

    >>> round(average_share(0.999, 0), 3), round(average_share(0.999, 10**6), 3)
    (0.9, 0.001)
    """
    return 1 - min(decay, (1 + updates) / (10 + updates))


def update_averages(averages: list[Tensor], weights: list[Tensor], share: PerModel) -> None:
    """average += share * (weight - average), in place.

    >>> average = torch.zeros(1)
    >>> update_averages([average], [torch.ones(1)], 0.25)
    >>> average
    tensor([0.2500])
    """
    with torch.no_grad():
        if isinstance(share, Tensor):
            foreach.lerp_(averages, weights, columns(share, averages))
        else:
            foreach.lerp_(averages, weights, share)


def columns(values: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """One value per model, (K,), shaped and typed to be broadcast over each tensor (K, ...).

    >>> [tuple(column.shape) for column in columns(torch.ones(3), [torch.ones(3, 5, 2)])]
    [(3, 1, 1)]
    """
    return [values.to(tensor.dtype).view(-1, *(1,) * (tensor.ndim - 1)) for tensor in tensors]
