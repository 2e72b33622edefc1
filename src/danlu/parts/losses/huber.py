"""Huber loss: squared for small differences, absolute for large ones, so that outliers pull less.

    0.5 d^2  where |d| <= delta,  delta (|d| - 0.5 delta)  elsewhere

d: output minus target, averaged over all numbers.
Source: Huber, 1964, "Robust estimation of a location parameter"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import RowCount, count_present, fill_missing, refuse_quantiles
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("numbers", "steps", "pixels")


class Config(Options):
    """Options of huber."""

    delta: float = Field(
        1.0,
        gt=0,
        description="The difference above which the loss grows linearly; with scale_target "
        "in standard deviations of the target.",
    )


class Huber(Loss):
    """Huber loss over outputs and targets (B, size), or (B, steps, size) where NaN does not
    count."""

    def __init__(self, delta: float) -> None:
        from torch.nn.functional import huber_loss

        self._huber_loss = huber_loss
        self._numbers = RowCount()
        self.delta = delta

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target = batch.target if batch.target.ndim == 2 else fill_missing(outputs, batch.target)
        return self._huber_loss(
            outputs.float(), target, reduction="sum", delta=self.delta
        ), self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The count of numbers averaged: rows times targets, times the steps that are not NaN."""
        target = batch.target
        return (
            self._numbers(target.numel(), target.device)
            if target.ndim == 2
            else count_present(target)
        )


def build(config: Config, task: Task) -> Huber:
    """The loss. Raises RecipeError for a task with quantiles."""
    refuse_quantiles("huber", task)
    return Huber(config.delta)
