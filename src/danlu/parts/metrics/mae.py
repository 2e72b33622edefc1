"""Mean absolute error, in the units of the target.

With several targets it is the mean of their errors, and the error of each is "target/mae". The
error of forecasts is in standard deviations of the training rows, unless `units` says otherwise
(mae_in_units)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._errors import ErrorMetric, ErrorOptions
from danlu.parts.tasks._base import HasUnits

if TYPE_CHECKING:
    from torch import Tensor

FITS = ("numbers", "steps")
BETTER = "lower"


class Config(ErrorOptions):
    """Options of mae."""


class MeanAbsoluteError(ErrorMetric):
    """The mean of absolute differences."""

    def errors(self, differences: Tensor) -> Tensor:
        """Differences (..., size) to their sizes."""
        return differences.abs()


def build(config: Config, task: HasUnits) -> MeanAbsoluteError:
    """The metric."""
    return MeanAbsoluteError("mae", task, config.units)
