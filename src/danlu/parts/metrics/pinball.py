"""Mean pinball loss of a forecast's quantiles, in standard deviations of the training rows.

Lower is better. It is half the mean absolute error where the only quantile is 0.5. With several
quantiles each is "q0.9/pinball" and so on.
Source: Gneiting and Raftery, 2007, doi:10.1198/016214506000001437."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import by_target
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "lower"


class Config(Options):
    """pinball has no options; the quantiles are those of the task (task.quantiles)."""


class QuantileLoss(Metric):
    """Sums the losses per quantile, and how many numbers there are."""

    def __init__(self, task: PredictsSteps) -> None:
        import torch

        self.task = task
        self.quantiles = torch.tensor(list(task.quantiles), dtype=torch.float64)

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """loss float64 (quantiles,), asked int64."""
        quantiles, target = self.quantiles.to(outputs.device), batch.target.double().unsqueeze(-1)
        wrong = self.task.in_deviations(
            (target - outputs.double().unflatten(-1, (-1, len(quantiles)))).transpose(-1, -2)
        )
        wrong = wrong.transpose(-1, -2)
        loss = (quantiles * wrong).maximum((quantiles - 1) * wrong).where(~target.isnan(), 0.0)
        return {"loss": loss.sum(dim=(0, 1, 2)), "asked": (~target.isnan()).sum()}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The mean over quantiles, 0 or more."""
        return by_target(
            "pinball",
            total["loss"] / total["asked"],
            tuple(f"q{quantile:g}" for quantile in self.quantiles.tolist()),
        )


def build(config: Config, task: PredictsSteps) -> QuantileLoss:
    """The metric. Raises RecipeError for a task without quantiles."""
    if not task.quantiles:
        message = "the metric pinball needs quantiles, and task.quantiles names none."
        raise RecipeError(
            [
                Problem(
                    "recipe", message, "set task.quantiles: [0.1, 0.5, 0.9], or leave pinball out"
                )
            ]
        )
    return QuantileLoss(task)
