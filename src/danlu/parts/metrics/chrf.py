"""chrF of generated text: F-score of its runs of 1 to 6 characters in the reference; 0 to 100.

It needs no words, so it suits languages with many word endings or without spaces better than BLEU.
Computed by sacrebleu, whose signature is the score "chrf_signature". `word_order: 2` gives chrF++,
which counts words and pairs of words as well.
Sources: Popović, 2015, doi:10.18653/v1/W15-3049, and 2017, doi:10.18653/v1/W17-4770 (chrF++); Post,
2018, arXiv:1804.08771 (sacrebleu)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from danlu.errors import MissingExtra
from danlu.parts.metrics._base import TextMetric
from danlu.parts.metrics._reduce import refuse_no_text
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

FITS = ("tokens",)
BETTER = "higher"
READS_TEXT = True


class Config(Options):
    """How sacrebleu counts."""

    character_order: int = Field(6, ge=1, le=20, description="Characters of the longest run.")
    word_order: int = Field(
        0, ge=0, le=10, description="Words of the longest run of words; 0: chrF, 2: chrF++."
    )
    beta: int = Field(
        2, ge=1, le=10, description="Recall weighs so many times as much as precision."
    )
    lowercase: bool = Field(False, description="Whether capital and small letters count as equal.")


class Chrf(TextMetric):
    """chrF of a whole split (not a mean over rows)."""

    label = "chrf"

    def __init__(self, config: Config) -> None:
        try:
            from sacrebleu.metrics.chrf import CHRF
        except ImportError:
            raise MissingExtra("sacrebleu", "translation", "the metric chrf") from None
        self._chrf = CHRF(
            char_order=config.character_order,
            word_order=config.word_order,
            beta=config.beta,
            lowercase=config.lowercase,
        )

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, object]:
        """{"chrf": 0 to 100, "chrf_signature": sacrebleu's}."""
        score = self._chrf.corpus_score(list(predictions), [list(references)])
        return {"chrf": float(score.score), "chrf_signature": str(self._chrf.get_signature())}


def build(config: Config, task: Task) -> Chrf:
    """The metric. Raises MissingExtra without sacrebleu, RecipeError for a task without reference
    texts."""
    refuse_no_text("chrf", task)
    return Chrf(config)
