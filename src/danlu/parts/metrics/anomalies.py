"""Anomaly detection: share of rows flagged, average precision, precision, recall and F1.

The score is average precision, which needs no threshold: it is high where true anomalies have the
highest scores. The others are "anomalies/flagged", "anomalies/f1" and so on, None before the
threshold is learnt (when training ends). All but the share of flagged rows need labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import finite_or_none, ratio
from danlu.parts.tasks._base import ScoresAnomalies, Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("steps",)
BETTER = "higher"


class Config(Options):
    """anomalies has no options; the threshold is learnt by the task (task.expected)."""


class FoundAnomalies(Metric):
    """Collects scores and labels of the rows; the label -1 means unknown."""

    joined = True
    label = "anomalies/average_precision"

    def __init__(self, task: ScoresAnomalies) -> None:
        self.task = task

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """score float64 (B,), label int64 (B,)."""
        return {
            "score": self.task.anomaly_scores(outputs, batch.target),
            "label": batch.inputs["anomaly"],
        }

    def score(self, total: dict[str, Tensor]) -> dict[str, float | None]:
        """All scores by full name."""
        scores, labelled = total["score"], total["label"] >= 0
        threshold = self.task.threshold
        scores_by_name: dict[str, float | None] = {self.label: None}
        if threshold is not None:
            scores_by_name["anomalies/flagged"] = ratio((scores > threshold).sum(), len(scores))
        if labelled.any():
            scores_by_name |= self._against(
                scores[labelled], total["label"][labelled] == 1, threshold
            )
        return scores_by_name

    def _against(
        self, scores: Tensor, true: Tensor, threshold: float | None
    ) -> dict[str, float | None]:
        from sklearn.metrics import average_precision_score

        scores_by_name: dict[str, float | None] = {}
        if true.any():
            scores_by_name[self.label] = finite_or_none(
                average_precision_score(true.cpu().numpy(), scores.cpu().numpy())
            )
        if threshold is None:
            return scores_by_name
        flagged = scores > threshold
        right = (flagged & true).sum()
        return scores_by_name | {
            "anomalies/precision": ratio(right, flagged.sum()),
            "anomalies/recall": ratio(right, true.sum()),
            "anomalies/f1": ratio(2 * right, flagged.sum() + true.sum()),
        }


def build(config: Config, task: Task) -> FoundAnomalies:
    """The metric. Raises RecipeError for a task that detects no anomalies."""
    if not isinstance(task, ScoresAnomalies):
        message = "the metric anomalies belongs to task: anomaly_detection."
        raise RecipeError([Problem("recipe", message, "leave anomalies out of metrics")])
    return FoundAnomalies(task)
