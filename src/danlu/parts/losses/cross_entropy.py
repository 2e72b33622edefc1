"""Cross-entropy of classes: minus the logarithm of the probability given to the right class.

    loss = -sum_c w_c q_c log softmax(outputs)_c
    q = (1 - s) target + s / classes                 (s: label_smoothing, w: class_weights)

Divided by the sum of the rows' weights, sum_c w_c target_c: the number of rows where there are no
class weights. (torch divides soft targets by the number of rows even with weights; here a soft
target that is one-hot gives exactly the loss of the hard one.) Of logits (B, T, classes) each token
counts as a row, and IGNORED tokens do not count: nats per token. Label smoothing: Szegedy et al.,
2015, arXiv:1512.00567."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.errors import Problem, RecipeError
from danlu.parts.losses._base import Loss
from danlu.parts.losses._count import DeviceConstant, RowCount
from danlu.parts.tasks._base import Task, WeighsClasses
from danlu.recipe import Options
from danlu.terms import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "tokens")


class Config(Options):
    """Options of cross_entropy."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target spread evenly over all classes."
    )
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="Weight of a row by its class: balanced (rows / (classes * rows of the class)),"
        " or a weight by class name (1 for those not named).",
    )


class CrossEntropy(Loss):
    """Cross-entropy over logits (B, classes) with targets int64 (B,) or probabilities float32 (B,
    classes).

    Or over logits (B, T, classes) with targets int64 (B, T), IGNORED where a token does not count.
    """

    def __init__(self, label_smoothing: float, weights: list[float] | None) -> None:
        from torch.nn.functional import cross_entropy

        from danlu.compat.torch_vmap import under_vmap
        from danlu.parts.losses._token_cross_entropy import (
            gathered_cross_entropy,
            token_cross_entropy,
        )

        self._under_vmap = under_vmap
        self._gathered = gathered_cross_entropy
        self._cross_entropy = cross_entropy
        self._token_cross_entropy = token_cross_entropy
        self._rows = RowCount()
        self.label_smoothing = label_smoothing
        self.weights = DeviceConstant(weights) if weights is not None else None

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        target = batch.target
        weights = None if self.weights is None else self.weights(outputs.device)
        if outputs.ndim == 3:
            places, classes = target.reshape(-1), outputs.shape[2]
            total = self._token_cross_entropy(
                outputs.float().reshape(-1, classes), places, weights, self.label_smoothing
            )
            return total, self.count(batch)
        if self._under_vmap():
            return self._gathered(
                outputs.float(), target, weights, self.label_smoothing
            ), self.count(batch)
        total = self._cross_entropy(
            outputs.float(), target, weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total, self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The sum of the weights of the rows, or of the tokens that are not IGNORED."""
        target = batch.target
        if target.ndim == 2 and not target.is_floating_point():
            scored = target != IGNORED
            if self.weights is None:
                return scored.sum().float()
            return (self.weights(target.device)[target.clamp(min=0)] * scored).sum()
        if self.weights is None:
            return self._rows(target.shape[0], target.device)
        weights = self.weights(target.device)
        return weights[target].sum() if target.ndim == 1 else (target @ weights).sum()


def build(config: Config, task: Task) -> CrossEntropy:
    """The loss. Raises RecipeError for class weights with a task whose classes were not counted (a
    vocabulary)."""
    if config.class_weights is None:
        return CrossEntropy(config.label_smoothing, None)
    if not isinstance(task, WeighsClasses):
        message = "loss.class_weights: the task has no classes to weigh."
        raise RecipeError([Problem("recipe", message, "leave class_weights out")])
    return CrossEntropy(config.label_smoothing, task.class_weights(config.class_weights))
