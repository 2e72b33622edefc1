"""Mean squared error: the square of output minus target, averaged over all numbers.

With scale_target the difference is in standard deviations of the training target; the metric mse is
in squared units of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import RowCount, count_present, fill_missing, refuse_quantiles
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("numbers", "steps", "pixels")


class Config(Options):
    """mse has no options."""


class MeanSquaredError(Loss):
    """Squared error over outputs and targets (B, size), or (B, steps, size) where NaN does not
    count."""

    def __init__(self) -> None:
        from torch.nn.functional import mse_loss

        self._mse_loss = mse_loss
        self._numbers = RowCount()

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target = batch.target if batch.target.ndim == 2 else fill_missing(outputs, batch.target)
        return self._mse_loss(outputs.float(), target, reduction="sum"), self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The count of numbers averaged: rows times targets, times the steps that are not NaN."""
        target = batch.target
        return (
            self._numbers(target.numel(), target.device)
            if target.ndim == 2
            else count_present(target)
        )


def build(config: Config, task: Task) -> MeanSquaredError:
    """The loss. Raises RecipeError for a task with quantiles."""
    refuse_quantiles("mse", task)
    return MeanSquaredError()
