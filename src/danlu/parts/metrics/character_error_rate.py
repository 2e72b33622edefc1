"""Character error rate: edits between answer and truth, per character of the truth.

Edits are insertions, deletions and replacements, over all rows together. 0 is perfect; an answer
longer than the truth can be above 1."""

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
    """Compares the texts of a whole split."""

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> float | None:
        """The rate; None where the references have no character."""
        return error_rate([list(text) for text in predictions], [list(text) for text in references])


def build(config: Config, task: Task) -> CharacterErrorRate:
    """The metric."""
    return CharacterErrorRate()
