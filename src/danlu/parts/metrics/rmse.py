"""Root mean squared error, in the units of the target.

With several targets it is the mean of their errors, and the error of each is "target/rmse". The
error of forecasts is in standard deviations of the training rows, unless `units` says otherwise
(rmse_in_units)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._errors import ErrorMetric, ErrorOptions
from danlu.parts.tasks._base import HasUnits

if TYPE_CHECKING:
    from torch import Tensor

FITS = ("numbers", "steps")
BETTER = "lower"


class Config(ErrorOptions):
    """Options of rmse."""


class RootMeanSquaredError(ErrorMetric):
    """The root of the mean of squared differences."""

    def errors(self, differences: Tensor) -> Tensor:
        """Differences (..., size) to their squares."""
        return differences.square()

    def from_mean(self, mean: Tensor) -> Tensor:
        """The root of the mean squares (size,)."""
        return mean.sqrt()


def build(config: Config, task: HasUnits) -> RootMeanSquaredError:
    """The metric."""
    return RootMeanSquaredError("rmse", task, config.units)
