"""Mean squared difference between a row and its reconstruction, on the scale the model sees.

0 is perfect. Every feature, or colour channel, has deviation 1 over the training rows, so about 1
is the score of always answering the mean row (the baseline)."""

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
    """Sums squared differences, and how many numbers there are."""

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
