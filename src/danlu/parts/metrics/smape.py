"""Symmetric mean absolute percentage error of forecasts, in percent: 0 is perfect, 200 the worst.

    200 |d| / (|output| + |target|)

d: output minus target, in the units of the data; 0 where both are 0. It is small where the numbers
are far from 0, whatever the model does: compare it with the baseline's. With several targets it is
their mean, and each is "target/smape". Source: Makridakis et al., 2020,
doi:10.1016/j.ijforecast.2019.04.014 (M4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import by_target, value_names
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "lower"


class Config(Options):
    """smape has no options."""


class SymmetricPercentage(Metric):
    """Sums the errors per target, and how many numbers there are."""

    def __init__(self, task: PredictsSteps) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """share float64 and asked int64, both (size,)."""
        predicted, target = (
            self.task.to_units(self.task.point_forecast(outputs)),
            self.task.to_units(batch.target),
        )
        present = ~target.isnan()
        wrong, size = (predicted - target).abs(), predicted.abs() + target.abs()
        share = (wrong / size).where(present & (size > 0), 0.0)
        return {"share": share.sum(dim=(0, 1)), "asked": present.sum(dim=(0, 1))}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """Percent, 0 to 200."""
        return by_target("smape", 200 * total["share"] / total["asked"], value_names(self.task))


def build(config: Config, task: PredictsSteps) -> SymmetricPercentage:
    """The metric."""
    return SymmetricPercentage(task)
