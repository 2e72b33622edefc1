"""Top-k accuracy: the share of rows whose true class is among the k likeliest.

Of equal outputs the first class in order counts as likelier, so top_k with k = 1 is accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes",)
BETTER = "higher"


class Config(Options):
    """Options of top_k."""

    k: int = Field(5, ge=1, description="How many of the likeliest classes count as an answer.")


class TopK(Metric):
    """Counts rows with the truth among the k likeliest, and all rows."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.label = f"top_{k}"  # so that several k may stand side by side

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """right and rows, int64 scalars."""
        import torch

        truth = batch.target[:, None]
        mine = outputs.gather(1, truth)
        earlier = torch.arange(outputs.shape[1], device=outputs.device) < truth
        before = (outputs > mine) | (
            (outputs == mine) & earlier
        )  # classes that come before the true one
        right = (before.sum(dim=1) < self.k).sum()
        return {"right": right, "rows": right.new_full((), len(batch.target))}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The share, 0 to 1."""
        return ratio(total["right"], total["rows"])


def build(config: Config, task: Task) -> TopK:
    """The metric."""
    return TopK(config.k)
