"""What the losses share: counts of rows as tensors, constants on a device, targets with gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.tasks._base import PredictsSteps, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RowCount:
    """A number of rows as a float32 scalar Tensor on a device, made once for each number.

    A loss needs it at every step, and making a tensor costs more than the rest of its Python. The
    tensor is shared: never change it in place. float32 holds whole numbers exactly up to 2**24."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._tensors: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, count: int, device: torch.device) -> Tensor:
        torch = self._torch
        if (
            torch.compiler.is_compiling()
        ):  # a traced size may be a symbol, which cannot be a dict key
            return torch.full((), float(count), device=device)
        count_tensor = self._tensors.get((count, device))
        if count_tensor is None:
            if len(self._tensors) >= 256:
                self._tensors.clear()
            with torch.inference_mode(
                False
            ):  # a tensor made in inference mode cannot be used in training
                count_tensor = self._tensors[count, device] = torch.full(
                    (), float(count), device=device
                )
        return count_tensor


class DeviceConstant:
    """A constant float32 tensor, copied once to each device that it is used on."""

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
    """The target (B, steps, size) with the outputs in place of NaN, where neither a difference nor
    a gradient arises."""
    return target.where(~target.isnan(), outputs.detach().to(target.dtype))


def refuse_quantiles(loss: str, task: Task) -> None:
    """Raises RecipeError for a task with quantiles, which only the loss `quantile` can train."""
    if isinstance(task, PredictsSteps) and task.quantiles:
        message = (
            f"the loss {loss} trains one number per step, and task.quantiles asks for "
            f"{len(task.quantiles)}."
        )
        raise RecipeError(
            [Problem("recipe", message, "set loss: quantile, or leave task.quantiles out")]
        )


def count_present(target: Tensor) -> Tensor:
    """The count of numbers of a target (B, steps, size) that are not NaN, a float32 scalar, at
    least 1."""
    return (~target.isnan()).sum().clamp(min=1).float()
