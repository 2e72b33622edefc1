"""Character error rate: insertions, deletions and replacements of characters between answer and truth, a character of the truth.

0 is perfect; an answer that is longer than the truth can lie above 1. Over the characters of all
rows together."""

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
    """character_error_rate has no options."""


class CharacterErrorRate(TextMetric):
    """Compares whole splits of texts."""

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> float | None:
        """The rate; None where the references hold no character."""
        return error_rate([list(text) for text in predictions], [list(text) for text in references])


def build(config: Config, task: Task) -> CharacterErrorRate:
    """The metric."""
    return CharacterErrorRate()
