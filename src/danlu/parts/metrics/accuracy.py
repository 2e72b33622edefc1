"""Accuracy: the share of rows answered right.

With several labels a row is right where each of its labels is; with tokens each token counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import HasProbabilities, Task
from danlu.recipe import Options
from danlu.terms import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels", "tokens")
BETTER = "higher"


class Config(Options):
    """accuracy has no options."""


class Accuracy(Metric):
    """Counts right rows and all rows (or tokens)."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """right and rows, int64 scalars."""
        if outputs.ndim == 3:
            scored = batch.target != IGNORED
            return {
                "right": ((outputs.argmax(dim=2) == batch.target) & scored).sum(),
                "rows": scored.sum(),
            }
        assert isinstance(self.task, HasProbabilities)
        right = self.task.predicted(outputs) == batch.target
        if right.ndim == 2:
            right = right.all(dim=1)
        right = right.sum()
        return {"right": right, "rows": right.new_full((), len(batch.target))}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The share, 0 to 1."""
        return ratio(total["right"], total["rows"])


def build(config: Config, task: Task) -> Accuracy:
    """The metric."""
    return Accuracy(task)
