"""The backward pass, and the length of the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from danlu.compat.torch_engine import backward

__all__ = ["backward", "grad_norm"]


def grad_norm(parameters: Sequence[nn.Parameter]) -> float:
    """The Euclidean length of all gradients together; 0 where no parameter has one.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> grad_norm([weight])
    5.0
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
