"""Precision: the share of rows predicted to be of a class that truly are.

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
    """Options of precision."""


class Precision(ClassCounts):
    """The share of right rows among those predicted."""

    name = "precision"

    def ratio(self, total: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(right, predicted) per class."""
        return total["right"], total["predicted"]


def build(config: Config, task: ClassifiesRows | LabelsRows) -> Precision:
    """The metric. Raises RecipeError for average binary without two classes."""
    return Precision(task, config.average)
