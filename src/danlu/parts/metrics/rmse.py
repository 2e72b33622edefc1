"""Root mean squared error, in the units of the target.

With several targets it is the mean of their errors, and the error of each is "target/rmse". The
error of forecasts is in standard deviations of the training rows, unless `units` says otherwise
(rmse_in_units)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import (
    UNITS,
    UNITS_MEANING,
    by_target,
    differences,
    label_in_units,
    value_names,
)
from danlu.parts.tasks._base import HasUnits
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("numbers", "steps")
BETTER = "lower"


class Config(Options):
    """Options of rmse."""

    units: UNITS = Field("auto", description=UNITS_MEANING)


class RootMeanSquaredError(Metric):
    """Sums squared errors per target, and how many numbers there are."""

    def __init__(self, task: HasUnits, units: str) -> None:
        self.task = task
        self.units = units
        self.label = label_in_units("rmse", units)

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """squared float64 and asked int64, both (size,)."""
        wrong, count = differences(self.task, outputs, batch.target, self.units)
        return {"squared": wrong.square().flatten(0, -2).sum(dim=0), "asked": count}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The error, 0 or more."""
        return by_target(
            self.label, (total["squared"] / total["asked"]).sqrt(), value_names(self.task)
        )


def build(config: Config, task: HasUnits) -> RootMeanSquaredError:
    """The metric."""
    return RootMeanSquaredError(task, config.units)
