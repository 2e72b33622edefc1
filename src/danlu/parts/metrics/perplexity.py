"""Perplexity: e to the mean cross-entropy of a token, as if choosing among so many equal tokens.

It depends on the tokenizer: compare only models of one vocabulary by it. Class weights and
smoothing of the loss are left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import finite_or_none, ratio, token_nats
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("tokens",)
BETTER = "lower"


class Config(Options):
    """perplexity has no options."""


class Perplexity(Metric):
    """Sums the cross-entropy of all tokens that count, and how many there are."""

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """nats float64, tokens int64."""
        nats, scored = token_nats(outputs, batch.target)
        return {"nats": nats, "tokens": scored.sum()}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """1 or more; None where it is too large for a float."""
        mean = ratio(total["nats"], total["tokens"])
        return None if mean is None or mean > 700 else finite_or_none(math.exp(mean))


def build(config: Config, task: Task) -> Perplexity:
    """The metric."""
    return Perplexity()
