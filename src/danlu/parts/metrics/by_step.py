"""The error of a forecast at each step ahead, as a table of mse and mae.

In standard deviations of the training rows. It shows how far ahead a forecast can be trusted; the
score itself is the mae of the last step divided by that of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import differences, finite_or_none, ratio
from danlu.parts.tasks._base import PredictsSteps
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "lower"


class Config(Options):
    """by_step has no options."""


class ErrorByStep(Metric):
    """Sums squared and absolute errors per step, and how many numbers there are."""

    label = "growth_of_error"

    def __init__(self, task: PredictsSteps) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """squared and absolute float64, asked int64, all (steps,)."""
        wrong, _ = differences(self.task, outputs, batch.target, "scaled")
        count = (~batch.target.isnan()).sum(dim=(0, 2))
        return {
            "squared": wrong.square().sum(dim=(0, 2)),
            "absolute": wrong.abs().sum(dim=(0, 2)),
            "asked": count,
        }

    def score(self, total: dict[str, Tensor]) -> dict[str, object]:
        """{"growth_of_error": last mae / first mae, "by_step": {"1": {"mse", "mae"}, ...}}."""
        squared, absolute = total["squared"] / total["asked"], total["absolute"] / total["asked"]
        pairs = enumerate(zip(squared.tolist(), absolute.tolist(), strict=True), 1)
        table = {
            str(step): {"mse": finite_or_none(mse), "mae": finite_or_none(mae)}
            for step, (mse, mae) in pairs
        }
        return {self.label: ratio(absolute[-1], absolute[0]), "by_step": table}


def build(config: Config, task: PredictsSteps) -> ErrorByStep:
    """The metric."""
    return ErrorByStep(task)
