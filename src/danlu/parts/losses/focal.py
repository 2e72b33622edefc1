"""Focal loss: cross-entropy with less weight on rows answered well, for rare classes and labels.

    loss = -a (1 - p)^gamma log p     p: the probability given to the truth, a: its alpha

Averaged over rows (classes) or over rows and labels (labels); alpha does not change the divisor.
Source: Lin et al., 2017, arXiv:1708.02002."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.errors import Problem, RecipeError
from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import DeviceConstant, RowCount
from danlu.parts.tasks._base import ClassifiesRows, LabelsRows
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
# The smallest 1 - p: with gamma < 1 the slope of (1 - p)^gamma is infinite at p = 1, and times 0 it
# would be NaN.
LEAST_MISS = 1e-12


class Config(Options):
    """Options of focal."""

    gamma: float = Field(
        2.0, ge=0, le=100, description="How much less rows answered well weigh; 0 is cross-entropy."
    )
    alpha: (
        Literal["balanced"]
        | Annotated[float, Field(gt=0, lt=1)]
        | dict[str, Annotated[float, Field(gt=0)]]
        | None
    ) = Field(
        None,
        description="Weight of the truth: a number for a label that a row has, or for the positive "
        "of two classes (the others get 1 minus it), balanced (rows / (classes * rows of the "
        "class)), a number by class (1 for those not named), or null for none.",
    )


class FocalOfClasses(Loss):
    """Focal loss over logits (B, classes); targets int64 (B,) or probabilities float32 (B,
    classes)."""

    def __init__(self, gamma: float, alpha: list[float] | None) -> None:
        self.gamma = gamma
        self.alpha = DeviceConstant(alpha) if alpha is not None else None
        self._rows = RowCount()

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target = batch.target
        log_p = outputs.float().log_softmax(dim=1)
        alpha = None if self.alpha is None else self.alpha(outputs.device)
        if target.ndim == 1:
            terms = focal_terms(log_p.gather(1, target[:, None])[:, 0], self.gamma)
            total = terms.sum() if alpha is None else (alpha[target] * terms).sum()
        else:
            total = (
                target * focal_terms(log_p, self.gamma) * (1.0 if alpha is None else alpha)
            ).sum()
        return total, self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The number of rows."""
        target = batch.target
        return self._rows(target.shape[0], target.device)


class FocalOfLabels(Loss):
    """Focal loss over logits and targets in [0, 1], both (B, labels)."""

    def __init__(self, gamma: float, alpha: float | None) -> None:
        from torch.nn.functional import logsigmoid

        self._logsigmoid = logsigmoid
        self.gamma = gamma
        self.weight_yes, self.weight_no = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        self._labels = RowCount()

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target, logits = batch.target, outputs.float()
        yes = focal_terms(self._logsigmoid(logits), self.gamma)
        no = focal_terms(self._logsigmoid(-logits), self.gamma)
        return (
            self.weight_yes * target * yes + self.weight_no * (1 - target) * no
        ).sum(), self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The number of rows times labels."""
        target = batch.target
        return self._labels(target.numel(), target.device)


def focal_terms(log_p: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p of log p (any shape); 1 - p is computed without cancellation."""
    return -((-log_p.expm1()).clamp(min=LEAST_MISS) ** gamma) * log_p


def build(config: Config, task: ClassifiesRows | LabelsRows) -> FocalOfClasses | FocalOfLabels:
    """The loss for a task with classes or labels."""
    alpha = config.alpha
    if isinstance(task, LabelsRows):
        if alpha is None or isinstance(alpha, float):
            return FocalOfLabels(config.gamma, alpha)
        raise _refused("with labels, loss.alpha is one number or null.")
    if alpha is None or isinstance(alpha, str | dict):
        return FocalOfClasses(config.gamma, task.class_weights(alpha))
    if len(task.classes) != 2:
        raise _refused(f"loss.alpha is one number, and there are {len(task.classes)} classes.")
    return FocalOfClasses(
        config.gamma, [alpha if number == task.positive_class else 1 - alpha for number in range(2)]
    )


def _refused(message: str) -> RecipeError:
    return RecipeError([Problem("recipe", message, "give a number by class, or balanced")])
