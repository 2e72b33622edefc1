"""Coverage of quantiles: how often the truth is at or below each quantile of a forecast.

For the quantile 0.9 that is to be in 0.9 of all cases. The score "coverage_error" is the mean
distance from that over the quantiles (0 is perfect); the shares are "q0.9/coverage" and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "lower"


class Config(Options):
    """coverage has no options; the quantiles are those of the task (task.quantiles)."""


class Coverage(Metric):
    """Counts numbers at or below each quantile, and all numbers."""

    label = "coverage_error"

    def __init__(self, quantiles: tuple[float, ...]) -> None:
        self.quantiles = quantiles

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """held int64 (quantiles,): numbers at or below each; asked int64: numbers that are not
        NaN."""
        target = batch.target.float().unsqueeze(-1)
        predicted = outputs.float().unflatten(-1, (-1, len(self.quantiles)))
        return {
            "held": (target <= predicted).sum(dim=(0, 1, 2)),
            "asked": (~target.isnan()).sum(),
        }  # NaN compares as False

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """{"coverage_error": mean distance, "q0.9/coverage": share}."""
        shares = [ratio(below, total["asked"]) for below in total["held"].tolist()]
        distances = [
            abs(covered - quantile)
            for covered, quantile in zip(shares, self.quantiles, strict=True)
            if covered is not None
        ]
        named = {
            f"q{quantile:g}/coverage": covered
            for quantile, covered in zip(self.quantiles, shares, strict=True)
        }
        return {self.label: sum(distances) / len(distances) if distances else None, **named}


def build(config: Config, task: PredictsSteps) -> Coverage:
    """The metric. Raises RecipeError for a task without quantiles."""
    if not task.quantiles:
        message = "the metric coverage needs quantiles, and task.quantiles names none."
        raise RecipeError(
            [
                Problem(
                    "recipe", message, "set task.quantiles: [0.1, 0.5, 0.9], or leave coverage out"
                )
            ]
        )
    return Coverage(tuple(task.quantiles))
