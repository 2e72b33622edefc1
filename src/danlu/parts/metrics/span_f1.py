"""F1 of spans of words: a span is right where its first word, its last word and its type are.

precision = right / predicted, recall = right / true, F1 = 2 right / (predicted + true), over all
spans of all rows (micro). Also scored: precision and recall, and all three by type. What a span is
stands in danlu/parts/tasks/_spans.py; the numbers equal those of the program conlleval. Tjong Kim
Sang and Buchholz, 2000, "Introduction to the CoNLL-2000 shared task: chunking"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import Task
from danlu.parts.tasks._spans import SpanFinder, Spans
from danlu.recipe import Options
from danlu.terms import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("tokens",)
BETTER = "higher"


class Config(Options):
    """span_f1 has no options."""


class SpanF1(Metric):
    """Counts right, predicted and true spans by type."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.finder = SpanFinder(tags)

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """right, found, actual: int64 (types,)."""
        import torch

        target_BT = batch.target
        predicted = self.finder.find(outputs.argmax(dim=2), target_BT != IGNORED)
        actual = self.finder.find(target_BT)
        right = torch.isin(self._keys(predicted, target_BT), self._keys(actual, target_BT))
        size = len(self.finder.types)
        return {
            "right": predicted.types[right].bincount(minlength=size),
            "found": predicted.types.bincount(minlength=size),
            "actual": actual.types.bincount(minlength=size),
        }

    def _keys(self, spans: Spans, target_BT: Tensor) -> Tensor:
        """One integer for each different span of a batch, int64."""
        places = target_BT.shape[1] + 1
        key = (spans.rows * places + spans.starts) * places + spans.stops
        return key * max(len(self.finder.types), 1) + spans.types

    def score(self, total: dict[str, Tensor]) -> dict[str, object]:
        """span_f1, span_precision, span_recall, 0 to 1, and span_types: the same of each type, with
        its number of true spans."""
        right, predicted, actual = (total[name] for name in ("right", "found", "actual"))
        rows = {
            name: {
                "precision": ratio(r, f),
                "recall": ratio(r, a),
                "f1": ratio(2 * r, f + a),
                "spans": a,
            }
            for name, r, f, a in zip(
                self.finder.types, right.tolist(), predicted.tolist(), actual.tolist()
            )
            if f + a
        }
        return {
            "span_f1": ratio(2 * right.sum(), (predicted + actual).sum()),
            "span_precision": ratio(right.sum(), predicted.sum()),
            "span_recall": ratio(right.sum(), actual.sum()),
            "span_types": rows,
        }


def build(config: Config, task: Task) -> SpanF1:
    """The metric. RecipeError for a task whose tokens have no tags."""
    classes = tuple(str(tag) for tag in task.classes)
    if not classes:
        message = "metrics: span_f1 counts spans of tagged words, and this task tags none."
        raise RecipeError(
            [Problem("recipe", message, "leave span_f1 out, or choose task: token_classification")]
        )
    return SpanF1(classes)
