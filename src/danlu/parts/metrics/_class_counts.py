"""What precision, recall and F1 share: right, predicted and true rows per class, and averages."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import AVERAGES, averaged, chosen_average, count_per_class
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch


class AverageOptions(Options):
    """How classes become one number."""

    average: AVERAGES = Field(
        "auto",
        description="How classes become one number: binary (the positive class), macro (mean), "
        "weighted (mean by true rows), micro (all rows together); auto: binary for two classes, "
        "else macro.",
    )


class ClassCounts(Metric):
    """A share per class, averaged over classes.

    name   the part's name, to which a chosen average is added (f1_micro)
    """

    name: ClassVar[str]

    def __init__(self, task: ClassifiesRows | LabelsRows, average: str) -> None:
        self.task = task
        self.average = chosen_average(average, self.name, task)
        self.label = self.name if average == "auto" else f"{self.name}_{average}"

    @abstractmethod
    def ratio(self, total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(top, bottom) of the share of each class, int64 (classes,), from the rows that are right,
        predicted and actual."""

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """right, predicted, actual: int64 (classes,)."""
        return count_per_class(self.task.predicted(outputs), batch.target, self.task.output.size)

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The share, 0 to 1."""
        positive = self.task.positive_class if isinstance(self.task, ClassifiesRows) else 0
        return averaged(*self.ratio(total), total, self.average, positive)
