"""BLEU of generated text: the share of its runs of 1 to 4 words in the reference; 0 to 100.

A penalty is multiplied in where the text is shorter than the reference. Computed by sacrebleu over
detokenised text, so that scores of different systems can be compared; its signature, to be quoted
with a published score, is the score "bleu_signature".
Sources: Papineni et al., 2002, doi:10.3115/1073083.1073135; Post, 2018, arXiv:1804.08771
(sacrebleu)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from danlu.errors import MissingExtra
from danlu.parts.metrics._base import TextMetric
from danlu.parts.metrics._reduce import refuse_no_text
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

_CHINESE = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_UNSPACED = r"[\u3040-\u30ff\u31f0-\u31ff\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f]"

FITS = ("tokens",)
BETTER = "higher"
READS_TEXT = True


class Config(Options):
    """How sacrebleu counts."""

    tokenize: Literal["auto", "13a", "intl", "zh", "char", "none"] = Field(
        "auto",
        description="What a word is: 13a for languages with spaces (as in WMT), zh for Chinese, "
        "char for single characters; auto: by the script of most letters of the references.",
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
        self._bleu = BLEU
        self._config = config

    def compare(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, object]:
        """{"bleu": 0 to 100, "bleu_signature": sacrebleu's}."""
        tokenize = self._config.tokenize
        if tokenize == "auto":
            tokenize = tokenization_of(references)
        bleu = self._bleu(tokenize=tokenize, lowercase=self._config.lowercase)
        score = bleu.corpus_score(list(predictions), [list(references)])
        return {"bleu": float(score.score), "bleu_signature": str(bleu.get_signature())}


def tokenization_of(texts: Sequence[str]) -> Literal["13a", "zh", "char"]:
    """How sacrebleu finds words, by the script of most letters in texts: zh for Chinese characters;
    char for Japanese, Thai, Lao, Khmer and Burmese, also written without spaces; 13a otherwise.

    >>> [tokenization_of([text]) for text in ("我喜欢喝茶", "I like tea", "お茶が好きです")]
    ['zh', '13a', 'char']
    """
    joined = "".join(texts)
    letters = sum(character.isalpha() for character in joined)
    chinese = len(re.findall(_CHINESE, joined))
    unspaced = len(re.findall(_UNSPACED, joined))
    if 2 * (chinese + unspaced) <= letters:
        return "13a"
    # Japanese mixes its own letters with Chinese characters
    return "char" if 4 * unspaced > chinese else "zh"


def build(config: Config, task: Task) -> Bleu:
    """The metric. Raises MissingExtra without sacrebleu, RecipeError for a task without reference
    texts."""
    refuse_no_text("bleu", task)
    return Bleu(config)
