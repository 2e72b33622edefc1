"""Word error rate: edits between answer and truth, per word of the truth.

Edits are insertions, deletions and replacements of words, over all rows together. 0 is perfect; an
answer longer than the truth can be above 1."""

from __future__ import annotations

from collections.abc import Sequence

from danlu.parts.metrics._base import TextMetric
from danlu.parts.metrics._edit_distance import error_rate
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

FITS = ("spelling",)
BETTER = "lower"
READS_TEXT = True


class Config(Options):
    """word_error_rate has no options."""


class WordErrorRate(TextMetric):
    """Compares the texts of a whole split."""

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> float | None:
        """The rate; None where the references have no word."""
        return error_rate(
            [text.split() for text in predictions], [text.split() for text in references]
        )


def build(config: Config, task: Task) -> WordErrorRate:
    """The metric."""
    return WordErrorRate()
