"""Whether a loss, a gradient or a running statistic is NaN or infinite, and which one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from danlu.compat.torch_foreach import foreach


class NonFiniteError(ArithmeticError):
    """The loss or a gradient was NaN or infinite in update `step`; no weight was changed.

    tensor   which one, in words
    rows     the rows of the batch
    """

    def __init__(self, step: int, tensor: str, rows: list[int]) -> None:
        super().__init__(f"step {step}: {tensor}")
        self.step = step
        self.tensor = tensor
        self.rows = rows


class FiniteCheck:
    """The check of one update.

    named        the parameters that are trained, with their names
    statistics   running statistics (of batch normalisation) by name; the forward pass changes them
    waits        whether reading a number makes the host wait for the device

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([1.0, math.inf])
    >>> check = FiniteCheck([("weight", weight)], {}, waits=False)
    >>> check.all_finite(0.5), check.first_nonfinite(0.5)
    (False, 'the gradient of weight')
    """

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

    def all_finite(self, total: float | Tensor) -> bool:
        """Whether the loss `total`, every gradient and every running statistic is finite.

        Only sums are looked at: a NaN or infinity in any entry survives its sum."""
        if self.waits:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            loss = torch.as_tensor(total).float().sum()
            sums = torch.stack([loss, *(gradient.sum().float() for gradient in gradients)])
            return bool(torch.isfinite(sums).all()) and self._finite_statistics()
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
        if math.isfinite(torch.stack(foreach.norm(tensors)).sum().item()):
            return True
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def first_nonfinite(self, total: float | Tensor) -> str:
        """What is NaN or infinite, in words: "the loss", "the gradient of layers.0.weight"."""
        if not math.isfinite(float(total)):
            return "the loss"
        for name, tensor in self.statistics.items():
            if not bool(torch.isfinite(tensor).all()):
                return f"the running statistic {name}"
        for name, parameter in zip(self.names, self.parameters):
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"the gradient of {name}"
        return "a gradient"
