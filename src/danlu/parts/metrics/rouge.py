"""ROUGE of generated text: F1 of the words and word pairs it shares with the reference; 0 to 1.

    rouge1, rouge2   2 P R / (P + R), P and R: the share of the text's, and of the reference's, runs
                     of 1 or 2 words that the other has too
    rougeL           the same of the longest common subsequence of words

Each is the mean over rows. Words are runs of letters and digits in small letters, without stemming;
in scripts without spaces (Chinese, Japanese, Thai, ...) each character is a word. On English text
equal to the library rouge-score (use_stemmer=False).
Sources: Lin, 2004, aclanthology.org/W04-1013; the longest common subsequence by Hyyrö, 2004
(bit-parallel)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence

from danlu.parts.metrics._base import TextMetric
from danlu.parts.metrics._reduce import refuse_no_text
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

FITS = ("tokens",)
BETTER = "higher"
READS_TEXT = True


class Config(Options):
    """rouge has no options."""


class Rouge(TextMetric):
    """Mean F1 over the rows of a split."""

    label = "rouge"

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, object]:
        """{"rouge1", "rouge2", "rougeL"}, 0 to 1 each; None without rows."""
        totals = dict.fromkeys(("rouge1", "rouge2", "rougeL"), 0.0)
        for prediction, reference in zip(predictions, references, strict=True):
            predicted, meant = words(prediction), words(reference)
            totals["rouge1"] += _of_runs(predicted, meant, 1)
            totals["rouge2"] += _of_runs(predicted, meant, 2)
            totals["rougeL"] += _f1(_common(predicted, meant), len(predicted), len(meant))
        count = len(predictions)
        return {name: total / count if count else None for name, total in totals.items()}


@functools.cache
def _word() -> re.Pattern[str]:
    from danlu.tokenizing.unicode_classes import UNSPACED

    alone = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED)
    return re.compile(rf"[{alone}]|(?:(?![{alone}])[^\W_])+")


def words(text: str) -> list[str]:
    """The words that ROUGE counts.

    >>> words("The cat's mat")
    ['the', 'cat', 's', 'mat']
    """
    return _word().findall(text.lower())


def _of_runs(predicted: list[str], meant: list[str], length: int) -> float:
    """F1 of the runs of `length` words."""
    ours, theirs = (
        Counter(zip(*(runs[start:] for start in range(length)))) for runs in (predicted, meant)
    )
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def _f1(common: int, predicted: int, meant: int) -> float:
    return 2 * common / (predicted + meant) if common else 0.0


def _common(one: list[str], other: list[str]) -> int:
    """The length of the longest common subsequence; each row of its table is one integer with one
    bit per word."""
    places: dict[str, int] = {}
    for index_of, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index_of
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(one) - row.bit_count()


def build(config: Config, task: Task) -> Rouge:
    """The metric. Raises RecipeError for a task without reference texts."""
    refuse_no_text("rouge", task)
    return Rouge()
