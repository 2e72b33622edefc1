"""Expected calibration error: how far predicted probabilities are from how often they come true.

0.05 is off by five percentage points. Classes: rows fall into equal bins of the likeliest class's
probability; the error is the mean over rows of |accuracy - mean probability| of their bin. Labels:
the same over every label's probability and how often rows have it.
Source: Guo et al., 2017, arXiv:1706.04599."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
BETTER = "lower"


class Config(Options):
    """Options of calibration_error."""

    bins: int = Field(
        15,
        ge=1,
        le=10_000,
        description="Equal bins of probability, (0, 1/bins], ..., (1 - 1/bins, 1].",
    )


class CalibrationError(Metric):
    """Counts answers, probabilities and right answers per bin."""

    def __init__(self, task: ClassifiesRows | LabelsRows, bins: int) -> None:
        self.task = task
        self.bins = bins

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """answers int64, right int64, stated float64: each (bins,)."""
        import torch

        stated = self.task.probabilities(outputs)
        if batch.target.ndim == 2:
            stated, right = stated.flatten(), (batch.target > 0.5).flatten()
        else:
            stated, likeliest = stated.max(dim=1)
            right = likeliest == batch.target
        bin_number = ((stated * self.bins).ceil().nan_to_num().long() - 1).clamp(0, self.bins - 1)
        empty = torch.zeros(self.bins, dtype=torch.int64, device=stated.device)
        return {
            "answers": empty.index_add(0, bin_number, torch.ones_like(bin_number)),
            "right": empty.index_add(0, bin_number, right.long()),
            "stated": empty.double().index_add(0, bin_number, stated),
        }

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The error, 0 to 1."""
        return ratio((total["right"] - total["stated"]).abs().sum(), total["answers"].sum())


def build(config: Config, task: ClassifiesRows | LabelsRows) -> CalibrationError:
    """The metric."""
    return CalibrationError(task, config.bins)
