"""AUROC: how often a row of the class scores above one that is not; 0.5 is guessing, 1 is perfect.

Exact; equal scores count half. Two classes: of the positive class; more classes: of each against
the rest, mean over classes; labels: mean over labels. Classes that all rows or no row has are left
out of the mean.
Source: Hanley and McNeil, 1982, "The meaning and use of the area under a receiver operating
characteristic (ROC) curve"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import counts_by_score, mean_of_present, one_against_rest, ratio
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
BETTER = "higher"


class Config(Options):
    """auroc has no options."""


class AreaUnderCurve(Metric):
    """Collects the outputs and targets of all rows."""

    joined = True

    def __init__(self, task: ClassifiesRows | LabelsRows) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """outputs (B, size) and target, unchanged."""
        return {"outputs": outputs, "target": batch.target}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The area, 0 to 1."""
        if not bool(total["outputs"].isfinite().all()):
            return None
        return mean_of_present(
            [area(*pair) for pair in one_against_rest(total["outputs"], total["target"], self.task)]
        )


def area(scores: Tensor, truth: Tensor) -> float | None:
    """The area under the curve of one ranking, counted in whole numbers; None where all rows or
    none are true.

    >>> import torch
    >>> area(torch.tensor([0.1, 0.4, 0.8]), torch.tensor([False, True, True]))
    1.0
    """
    positives, negatives = counts_by_score(scores, truth)
    below = negatives.cumsum(dim=0) - negatives
    half_wins = (positives * (2 * below + negatives)).sum()
    return ratio(half_wins, 2 * int(positives.sum()) * int(negatives.sum()))


def build(config: Config, task: ClassifiesRows | LabelsRows) -> AreaUnderCurve:
    """The metric."""
    return AreaUnderCurve(task)
