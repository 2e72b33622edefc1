"""Mean absolute scaled error of forecasts: 1 is the seasonal naive forecast on the training rows.

The absolute error is divided by the mean absolute difference between a training row and the one a
season before it (the row before, where there is no season). It has no unit, so series can be
averaged. With several targets it is their mean, and each is "target/mase". None for a target that
repeats itself exactly. Source: Hyndman and Koehler, 2006, doi:10.1016/j.ijforecast.2006.03.001."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import by_target, differences, value_names
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "lower"


class Config(Options):
    """mase has no options; the season is that of the task (task.season)."""


class ScaledError(Metric):
    """Sums absolute errors per target, and how many numbers there are."""

    def __init__(self, task: PredictsSteps) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """absolute float64 and asked int64, both (size,)."""
        wrong, count = differences(self.task, outputs, batch.target, "scaled")
        return {"absolute": wrong.abs().sum(dim=(0, 1)), "asked": count}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The error as a multiple of the naive forecast's, 0 or more."""
        naive = total["absolute"].new_tensor(self.task.naive_errors)
        naive = naive.where(naive > 0, float("nan"))
        return by_target("mase", total["absolute"] / total["asked"] / naive, value_names(self.task))


def build(config: Config, task: PredictsSteps) -> ScaledError:
    """The metric."""
    return ScaledError(task)
