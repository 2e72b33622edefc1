"""Mean squared difference between a row and what is made of it again, on the scale the model sees.

0 is perfect. Every feature, or colour channel, has deviation 1 over the training rows, so 1 is as
far off as two unlike rows are; what always giving the mean row would score is told beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("pixels",)
BETTER = "lower"


class Config(Options):
    """reconstruction_error has no options."""


class ReconstructionError(Metric):
    """Sum of squared differences, and numbers compared."""

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """squared float64, numbers int64."""
        wrong = outputs.double() - batch.target.double()
        return {"squared": wrong.square().sum(), "numbers": batch.rows.new_full((), wrong.numel())}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The error, 0 or more."""
        return ratio(total["squared"], total["numbers"])


def build(config: Config, task: Task) -> ReconstructionError:
    """The metric."""
    return ReconstructionError()
