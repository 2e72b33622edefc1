"""Average precision: the area under the precision-recall curve, as a sum of steps.

    sum over thresholds, falling, of (recall_n - recall_(n-1)) precision_n

Says more than AUROC where the class is rare. Exact; equal scores are one threshold. Two classes: of
the positive class; more classes: of each against the rest, mean over classes; labels: mean over
labels. Classes that no row has are left out of the mean."""

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
    """average_precision has no options."""


class AveragePrecision(Metric):
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
            [
                steps(*pair)
                for pair in one_against_rest(total["outputs"], total["target"], self.task)
            ]
        )


def steps(scores: Tensor, truth: Tensor) -> float | None:
    """The average precision of one ranking; None where no row is true."""
    positives, negatives = (counts.flip(0) for counts in counts_by_score(scores, truth))
    precision = positives.cumsum(dim=0).double() / (positives + negatives).cumsum(dim=0)
    return ratio((precision * positives).sum(), positives.sum())


def build(config: Config, task: ClassifiesRows | LabelsRows) -> AveragePrecision:
    """The metric."""
    return AveragePrecision(task)
