"""How a backward pass is started, and how long the gradient is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward


def backward(total: Tensor, share: Tensor) -> None:
    """Add to every parameter's gradient that of total * share (`share` 1 / count: the mean, to the
    bit), summed over entries.

    This is where Tensor.backward ends after its checks of shapes, which take 5 microseconds and,
    for a gradient that is given, import a computer algebra system (0.3 s). With a division in the
    recorded graph instead it is 8 microseconds slower than this."""
    _engine_run_backward(
        (total,), (share,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def grad_norm(parameters: Sequence[nn.Parameter]) -> float:
    """The length of the whole gradient as it now stands; 0 where there is none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
