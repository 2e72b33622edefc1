"""R2: the share of the target's variance that the answers explain; 1 is perfect.

0 is the score of always answering the mean of the split. None where the split's target is constant.
With several targets it is their mean, and each is "target/r2"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import by_target
from danlu.parts.tasks._base import PredictsNumbers
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("numbers",)
BETTER = "higher"


class Config(Options):
    """r2 has no options."""


class ExplainedVariance(Metric):
    """Sums squared errors, targets and squared targets, and counts rows.

    All as deviations from the training rows' mean, since a sum of squares loses the variance beside
    a large mean."""

    def __init__(self, task: PredictsNumbers) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """squared, target, target_squared float64 (size,), rows int64."""
        target = self.task.standardised(batch.target)
        return {
            "squared": (self.task.standardised(outputs) - target).square().sum(dim=0),
            "target": target.sum(dim=0),
            "target_squared": target.square().sum(dim=0),
            "rows": batch.rows.new_full((), len(batch.target)),
        }

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The share, at most 1."""
        spread = total["target_squared"] - total["target"].square() / total["rows"]
        # the rounding errors of a constant target are not a variance
        spread = spread.where(spread > 1e-12 * total["target_squared"], float("nan"))
        return by_target("r2", 1 - total["squared"] / spread, self.task.output.names)


def build(config: Config, task: PredictsNumbers) -> ExplainedVariance:
    """The metric."""
    return ExplainedVariance(task)
