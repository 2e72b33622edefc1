"""Mean squared error, in squared units of the target.

With several targets it is the mean of their errors, and the error of each is "target/mse". The
error of forecasts is in standard deviations of the training rows, unless `units` says otherwise
(mse_in_units)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._errors import ErrorMetric, ErrorOptions
from danlu.parts.tasks._base import HasUnits

if TYPE_CHECKING:
    from torch import Tensor

FITS = ("numbers", "steps")
BETTER = "lower"


class Config(ErrorOptions):
    """Options of mse."""


class MeanSquaredError(ErrorMetric):
    """The mean of squared differences."""

    def errors(self, differences: Tensor) -> Tensor:
        """Differences (..., size) to their squares."""
        return differences.square()


def build(config: Config, task: HasUnits) -> MeanSquaredError:
    """The metric."""
    return MeanSquaredError("mse", task, config.units)
