"""Whether a NaN or infinity stands in a loss, a gradient or a running statistic, and in which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """A NaN or infinity stood in the loss or in a gradient; no weight was moved."""

    def __init__(self, step: int, tensor: str, rows: list[int]) -> None:
        super().__init__(f"step {step}: {tensor}")
        self.step = step
        self.tensor = tensor
        self.rows = rows


class FiniteCheck:
    """The checks of an update.

    `named` are the parameters that move; `statistics` the running statistics (batch normalisation),
    which move in the forward pass; `waits` whether reading a number makes the host wait for the
    device."""

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        statistics: Mapping[str, Tensor],
        *,
        waits: bool,
    ) -> None:
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.statistics = statistics
        self.waits = waits

    def all_finite(self, total: Any) -> bool:
        """Whether the loss, every gradient and the running statistics are finite: a NaN or infinity
        in any entry survives its sum."""
        if self.waits:
            check = torch.stack(
                [
                    total.float().sum(),
                    *(each.grad.sum().float() for each in self.parameters if each.grad is not None),
                ]
            )
            return bool(torch.isfinite(check).all()) and self._finite_statistics()
        if not math.isfinite(total) or not self._finite_statistics():
            return False
        for parameter in self.parameters:
            gradient = parameter.grad
            # a finite gradient may still overflow its sum: only then is every entry looked at
            if (
                gradient is not None
                and not math.isfinite(gradient.sum().item())
                and not bool(torch.isfinite(gradient).all())
            ):
                return False
        return True

    def _finite_statistics(self) -> bool:
        """Whether running statistics are finite. One huge input makes a variance infinite while
        loss and gradients look healthy."""
        if not self.statistics:
            return True
        tensors = list(self.statistics.values())
        # a finite tensor may still overflow its norm: only then is every entry looked at
        if math.isfinite(torch.stack(torch._foreach_norm(tensors)).sum().item()):
            return True
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def first_nonfinite(self, total: Any) -> str:
        """What is not finite, in words."""
        if not math.isfinite(float(total)):
            return "the loss"
        for name, tensor in self.statistics.items():
            if not bool(torch.isfinite(tensor).all()):
                return f"the running statistic {name}"
        for name, parameter in zip(self.names, self.parameters):
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"the gradient of {name}"
        return "a gradient"
