"""Quantile (pinball) loss: the truth is to lie below the quantile q in a share q of all cases.

    max(q d, (q - 1) d)   d: target minus output for the quantile q

Averaged over quantiles and over all numbers that are not NaN. Targets are in standard deviations of
the training rows. Source: Koenker and Bassett, 1978, doi:10.2307/1913643."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import DeviceConstant, count_present, fill_missing
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)


class Config(Options):
    """quantile has no options; the quantiles are those of the task (task.quantiles)."""


class PinballLoss(Loss):
    """Pinball loss over outputs (B, steps, variables * quantiles) and targets (B, steps,
    variables), where NaN does not count."""

    def __init__(self, quantiles: list[float]) -> None:
        self._quantiles = DeviceConstant(quantiles)
        self.many = len(quantiles)

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        predicted = outputs.float().unflatten(-1, (-1, self.many))
        target = batch.target.unsqueeze(-1).expand_as(predicted)
        wrong = fill_missing(predicted, target) - predicted
        quantiles = self._quantiles(outputs.device)
        loss = (quantiles * wrong).maximum((quantiles - 1) * wrong)
        # at 0 both branches get half of the gradient, which cancels for the median alone
        return loss.masked_fill(target.isnan(), 0.0).sum() / self.many, self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The count of numbers that are not NaN."""
        return count_present(batch.target)


def build(config: Config, task: PredictsSteps) -> PinballLoss:
    """The loss. Raises RecipeError for a task without quantiles."""
    if not task.quantiles:
        message = "the loss quantile needs quantiles to train, and task.quantiles names none."
        raise RecipeError(
            [Problem("recipe", message, "set task.quantiles: [0.1, 0.5, 0.9], or another loss")]
        )
    return PinballLoss(list(task.quantiles))
