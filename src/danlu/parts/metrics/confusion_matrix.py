"""Confusion matrix: how many rows of each true class (line) were predicted as each class (column).

Classes are in their order. With labels: one matrix per label, [[rightly not predicted, wrongly
predicted], [wrongly not predicted, rightly predicted]]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
BETTER = "higher"  # a table is never compared


class Config(Options):
    """confusion_matrix has no options."""


class ConfusionMatrix(Metric):
    """Counts rows by true and predicted class."""

    def __init__(self, task: ClassifiesRows | LabelsRows) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """rows int64 (classes, classes), or (labels, 2, 2)."""
        predicted, target, size = self.task.predicted(outputs), batch.target, self.task.output.size
        if target.ndim == 1:
            return {
                "rows": (target * size + predicted)
                .bincount(minlength=size * size)
                .reshape(size, size)
            }
        first = 4 * target.new_tensor(range(size)).long()
        cells = first + 2 * (target > 0.5).long() + predicted.long()
        return {"rows": cells.flatten().bincount(minlength=4 * size).reshape(size, 2, 2)}

    def score(self, total: dict[str, Tensor]) -> dict[str, object]:
        """{"confusion_matrix": nested lists of whole numbers}."""
        return {"confusion_matrix": total["rows"].tolist()}


def build(config: Config, task: ClassifiesRows | LabelsRows) -> ConfusionMatrix:
    """The metric."""
    return ConfusionMatrix(task)
