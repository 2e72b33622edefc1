"""Recall: the share of rows truly of a class that are predicted to be.

With two classes it is that of the positive class (task.positive), with more the mean over classes
(macro), unless `average` says otherwise. A class that no row has and no answer gives is left out;
where a class has 0 / 0 because one of the two is missing, it counts as 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._class_counts import AverageOptions, ClassCounts
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows

if TYPE_CHECKING:
    from torch import Tensor

FITS = ("classes", "labels")
BETTER = "higher"


class Config(AverageOptions):
    """Options of recall."""


class Recall(ClassCounts):
    """The share of right rows among those of the class."""

    name = "recall"

    def ratio(self, total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(right, actual) per class."""
        return total["right"], total["actual"]


def build(config: Config, task: ClassifiesRows | LabelsRows) -> Recall:
    """The metric. Raises RecipeError for average binary without two classes."""
    return Recall(task, config.average)
