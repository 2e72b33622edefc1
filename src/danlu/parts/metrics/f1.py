"""F1: the harmonic mean of precision and recall, 2 right / (predicted + actual).

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
    """Options of f1."""


class F1(ClassCounts):
    """The harmonic mean of precision and recall."""

    name = "f1"

    def ratio(self, total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(2 right, predicted + actual) per class."""
        return 2 * total["right"], total["predicted"] + total["actual"]


def build(config: Config, task: ClassifiesRows | LabelsRows) -> F1:
    """The metric. Raises RecipeError for average binary without two classes."""
    return F1(task, config.average)
