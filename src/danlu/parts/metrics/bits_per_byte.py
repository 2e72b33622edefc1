"""Bits per byte: the cross-entropy of all tokens in bits, divided by the bytes of UTF-8 they write.

It is what a compressor built on the model would need per byte of the text. Unlike loss and
perplexity it does not depend on the tokenizer, so any two language models can be compared by it.
Tokens that write nothing (the end of a document) cost bits and have no bytes. A Chinese character
has three bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from danlu.errors import Problem, RecipeError
from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio, token_nats
from danlu.parts.tasks._base import ReadsRunningText, Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("tokens",)
BETTER = "lower"


class Config(Options):
    """bits_per_byte has no options."""


class BitsPerByte(Metric):
    """Sums the cross-entropy of all tokens that count, and the bytes they write."""

    def __init__(self, token_bytes: list[float] | None) -> None:
        import torch

        self.token_bytes = None if token_bytes is None else torch.tensor(token_bytes)

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """nats float64, bytes int64."""
        nats, scored = token_nats(outputs, batch.target)
        if self.token_bytes is None:
            return {"nats": nats, "bytes": scored.sum() * 0}
        lengths = self.token_bytes.to(outputs.device)
        return {"nats": nats, "bytes": lengths[batch.target[scored]].long().sum()}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """0 or more; None where the tokens write no byte."""
        nats = ratio(total["nats"], total["bytes"])
        return None if nats is None else nats / math.log(2)


def build(config: Config, task: Task) -> BitsPerByte:
    """The metric; it has no score where tokens have no text of their own (words).

    Raises RecipeError for a task whose tokens are not text."""
    if not isinstance(task, ReadsRunningText):
        message = (
            "metrics: bits_per_byte needs tokens that write text, and those of this task do not."
        )
        raise RecipeError([Problem("recipe", message, "choose perplexity or accuracy")])
    lengths = task.token_bytes
    return BitsPerByte(None if lengths is None else [float(length) for length in lengths])
