"""Log loss: minus the mean logarithm of the probability given to the truth, in nats.

Without the weights and smoothing of the loss. Always answering two classes with their shares scores
their entropy (0.69 for one half each). With labels: the mean over rows and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
BETTER = "lower"


class Config(Options):
    """log_loss has no options."""


class LogLoss(Metric):
    """Sums the logarithms, and how many there are."""

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """lost float64, answers int64."""
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        target, logits = batch.target, outputs.double()
        if target.ndim == 2:
            lost = binary_cross_entropy_with_logits(logits, target.double(), reduction="sum")
        else:
            lost = cross_entropy(logits, target, reduction="sum")
        return {"lost": lost, "answers": batch.rows.new_full((), target.numel())}

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The mean, 0 or more."""
        return ratio(total["lost"], total["answers"])


def build(config: Config, task: Task) -> LogLoss:
    """The metric."""
    return LogLoss()
