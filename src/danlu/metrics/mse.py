"""Mean squared error, in squared units of the target.

With several targets it is the mean of their errors, and each stands beside it as "target/mse".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.recipe import Options
from danlu.tallies import by_target

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("numbers",)
BETTER = "lower"


class Config(Options):
    """mse has no options."""


class MeanSquaredError:
    """Sum of squared errors a target, and rows."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """squared float64 (size,), rows int64."""
        wrong = self.task.in_units(outputs.double() - batch.target.double())
        return {"squared": wrong.square().sum(dim=0), "rows": batch.rows.new_full((), len(batch.target))}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The error, 0 or more."""
        return by_target("mse", total["squared"] / total["rows"], self.task.output.names)


def build(config: Config, task: Any) -> MeanSquaredError:
    """The metric."""
    return MeanSquaredError(task)
