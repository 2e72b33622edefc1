"""BLEU of generated text: the share of its runs of 1 to 4 words in the reference; 0 to 100.

A penalty is multiplied in where the text is shorter than the reference. Computed by sacrebleu over
detokenised text, so that scores of different systems can be compared; its signature, to be quoted
with a published score, is the score "bleu_signature".
Sources: Papineni et al., 2002, doi:10.3115/1073083.1073135; Post, 2018, arXiv:1804.08771
(sacrebleu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field(
        "13a",
        description="What a word is: 13a for languages with spaces (as in WMT), zh for Chinese, "
        "char for single characters.",
    )
    lowercase: bool = Field(False, description="Whether capital and small letters count as equal.")


class Bleu(TextMetric):
    """BLEU of a whole split (not a mean over rows)."""

    label = "bleu"

    def __init__(self, config: Config) -> None:
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError:
            raise MissingExtra("sacrebleu", "translation", "the metric bleu") from None
        self._bleu = BLEU(tokenize=config.tokenize, lowercase=config.lowercase)

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, object]:
        """{"bleu": 0 to 100, "bleu_signature": sacrebleu's}."""
        score = self._bleu.corpus_score(list(predictions), [list(references)])
        return {"bleu": float(score.score), "bleu_signature": str(self._bleu.get_signature())}


def build(config: Config, task: Task) -> Bleu:
    """The metric. Raises MissingExtra without sacrebleu, RecipeError for a task without reference
    texts."""
    refuse_no_text("bleu", task)
    return Bleu(config)
