"""Binary cross-entropy: each label is its own yes or no, averaged over rows and labels.

loss = -(w t log sigmoid(output) + (1 - t) log(1 - sigmoid(output)))     (w: positive_weight)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import DeviceConstant, RowCount
from danlu.parts.tasks._base import LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("labels",)
Weight = Annotated[float, Field(gt=0)]


class Config(Options):
    """Options of binary_cross_entropy."""

    positive_weight: Literal["balanced"] | Weight | dict[str, Weight] | None = Field(
        None,
        description="Weight of a label in the rows that have it: balanced (rows without it / rows "
        "with it), one number for all labels, or a number by label (1 for those not named).",
    )


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy over logits and targets in [0, 1], both (B, labels)."""

    def __init__(self, weights: list[float] | None) -> None:
        from torch.nn.functional import binary_cross_entropy_with_logits

        self._binary_cross_entropy = binary_cross_entropy_with_logits
        self._labels = RowCount()
        self.weights = DeviceConstant(weights) if weights is not None else None

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        weights = None if self.weights is None else self.weights(outputs.device)
        total = self._binary_cross_entropy(
            outputs.float(), batch.target, reduction="sum", pos_weight=weights
        )
        return total, self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """Rows times labels; weights do not change it (as in torch)."""
        target = batch.target
        return self._labels(target.numel(), target.device)


def build(config: Config, task: LabelsRows) -> BinaryCrossEntropy:
    """The loss for a task with labels."""
    return BinaryCrossEntropy(task.positive_weights(config.positive_weight))
