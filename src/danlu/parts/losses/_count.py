"""What the losses share: rows counted as a tensor, constants on a device, targets where a place is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.tasks._base import PredictsSteps, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RowCount:
    """A number of rows as a float32 scalar Tensor on a device, made once for each size.

    A loss needs it every step, and making a tensor costs more than the rest of its Python. What is
    returned is shared: never change it in place. float32 holds whole numbers exactly up to 2**24.
    """

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._tensors: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, count: int, device: torch.device) -> Tensor:
        torch = self._torch
        if torch.compiler.is_compiling():  # a traced size may be a symbol, which is no key
            return torch.full((), float(count), device=device)
        count_tensor = self._tensors.get((count, device))
        if count_tensor is None:
            if len(self._tensors) >= 256:
                self._tensors.clear()
            with torch.inference_mode(
                False
            ):  # else one first made by an evaluation could not be used in training
                count_tensor = self._tensors[count, device] = torch.full(
                    (), float(count), device=device
                )
        return count_tensor


class DeviceConstant:
    """A constant tensor, copied once to each device that asks for it."""

    def __init__(self, values: list[float]) -> None:
        import torch

        self._torch = torch
        self.values = torch.tensor(values, dtype=torch.float32)
        self._copies: dict[torch.device, Tensor] = {self.values.device: self.values}

    def __call__(self, device: torch.device) -> Tensor:
        copy = self._copies.get(device)
        if copy is None:
            with self._torch.inference_mode(False):
                copy = self._copies[device] = self.values.to(device)
        return copy


def fill_missing(outputs: Tensor, target: Tensor) -> Tensor:
    """The target (B, steps, size) with each place where nothing is asked (NaN) holding the output:
    no difference and no gradient."""
    return target.where(~target.isnan(), outputs.detach().to(target.dtype))


def refuse_quantiles(loss: str, task: Task) -> None:
    """Raises RecipeError where a task asks for quantiles, which only a loss of quantiles can
    train."""
    if isinstance(task, PredictsSteps) and task.quantiles:
        message = f"the loss {loss} trains one number a step, and task.quantiles asks for {len(task.quantiles)}."
        raise RecipeError(
            [Problem("recipe", message, "set loss: quantile, or leave task.quantiles out")]
        )


def count_present(target: Tensor) -> Tensor:
    """How many places of a target of steps are asked for (not NaN), a float32 scalar, at least
    1."""
    return (~target.isnan()).sum().clamp(min=1).float()
