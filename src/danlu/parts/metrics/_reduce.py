"""What the metrics share: counts per class, ranks, errors in units, averages without NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from danlu.errors import Problem, RecipeError
from danlu.parts.tasks._base import ClassifiesRows, HasReferences, HasUnits, PredictsSteps, Task
from danlu.terms import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def refuse_no_text(metric: str, task: Task) -> None:
    """Raises RecipeError for a task without reference texts, which a text metric needs."""
    if not isinstance(task, HasReferences):
        message = f"the metric {metric} compares texts, and the task has no reference texts."
        raise RecipeError(
            [Problem("recipe", message, "leave it out, or choose task: sequence_to_sequence")]
        )


def differences(
    task: HasUnits, outputs: Tensor, target: Tensor, units: str
) -> tuple[Tensor, Tensor]:
    """(outputs minus target, how many count): float64 (..., size), 0 where the target is NaN; int64
    (size,).

    units   "data": the units of the target
            "scaled": standard deviations of the training rows
            "auto": "data" for numbers, "scaled" for steps, whose variables have no unit in common
    """
    import torch

    if target.ndim == 2:
        wrong = outputs.double() - target.double()
        count = torch.full((target.shape[1],), len(target), device=target.device)
    else:
        present = ~target.isnan()
        assert isinstance(task, PredictsSteps)
        wrong = (task.point_forecast(outputs).double() - target.double()).where(present, 0.0)
        count = present.sum(dim=(0, 1))
    scaled = units == "scaled" or (units == "auto" and target.ndim > 2)
    return (task.in_deviations(wrong) if scaled else task.in_units(wrong)), count


def value_names(task: HasUnits) -> tuple[str, ...]:
    """The names of the numbers compared: the variables of a forecast, else the outputs."""
    return task.variables if isinstance(task, PredictsSteps) else task.output.names


UNITS = Literal["auto", "data", "scaled"]


UNITS_MEANING = (
    "Units of the differences: data (those of the target) or scaled (standard deviations of the "
    "training rows); auto: data for numbers, scaled for forecasts, as in the literature."
)


def label_in_units(name: str, units: str) -> str:
    """The score's name where its units are chosen: mae, mae_in_units, mae_scaled.

    >>> label_in_units("mae", "data")
    'mae_in_units'
    """
    return {"data": f"{name}_in_units", "scaled": f"{name}_scaled"}.get(units, name)


def finite_or_none(value: float | Tensor) -> float | None:
    """A plain float, or None for infinity and NaN.

    >>> finite_or_none(float("inf")) is None
    True
    """
    value = float(value)
    return value if math.isfinite(value) else None


def ratio(part: float | Tensor, whole: float | Tensor) -> float | None:
    """part / whole as a plain float, or None where whole is 0.

    >>> ratio(1, 4)
    0.25
    """
    whole = float(whole)
    return finite_or_none(float(part) / whole) if whole else None


def by_target(
    name: str, values: Tensor, targets: tuple[str, ...]
) -> float | dict[str, float | None] | None:
    """The score of one target: its number. Of several: {name: their mean, "target/name": number}.
    None in place of a number that is not finite."""
    scores = [finite_or_none(value) for value in values.tolist()]
    if len(scores) == 1:
        return scores[0]
    finite = [value for value in scores if value is not None]
    mean = sum(finite) / len(finite) if len(finite) == len(scores) else None
    return {
        name: mean,
        **{f"{target}/{name}": value for target, value in zip(targets, scores, strict=True)},
    }


def count_per_class(predicted: Tensor, target: Tensor, classes: int) -> dict[str, Tensor]:
    """How often each class was predicted rightly, predicted, and true: {"right", "predicted",
    "actual"}, each int64 (classes,).

    `predicted` and `target` are class numbers (B,), or labels predicted (bool) and true (0/1), both
    (B, classes)."""
    if predicted.ndim == 2:
        has_label = target > 0.5
        return {
            "right": (predicted & has_label).sum(dim=0),
            "predicted": predicted.sum(dim=0),
            "actual": has_label.sum(dim=0),
        }
    return {
        "right": predicted[predicted == target].bincount(minlength=classes),
        "predicted": predicted.bincount(minlength=classes),
        "actual": target.bincount(minlength=classes),
    }


_CELLS = 1 << 24  # logits whose softmax is computed at a time


def token_nats(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(the cross-entropy of all tokens that are not IGNORED, float64 scalar; which those are, bool
    (B, T)) of logits (B, T, V) and int64 (B, T)."""
    import torch
    from torch.nn.functional import cross_entropy

    scored = target != IGNORED
    logits, places = outputs.flatten(0, 1), target.flatten()
    size = max(1, _CELLS // logits.shape[1])
    pieces = zip(logits.split(size), places.split(size))
    sums = [
        cross_entropy(piece.float(), asks, ignore_index=IGNORED, reduction="none").double().sum()
        for piece, asks in pieces
    ]
    return torch.stack(sums).sum(), scored


AVERAGES = Literal["auto", "binary", "macro", "micro", "weighted"]


def chosen_average(average: str, metric: str, task: Task) -> str:
    """`average` with "auto" resolved: binary for two classes, else macro. RecipeError for binary
    without two classes."""
    two = isinstance(task, ClassifiesRows) and len(task.classes) == 2
    if average == "auto":
        return "binary" if two else "macro"
    if average == "binary" and not two:
        count = len(task.classes)
        message = (
            f"metrics: average binary of {metric} needs two classes, and the task has {count}."
        )
        raise RecipeError([Problem("recipe", message, "choose macro, micro or weighted")])
    return average


def averaged(
    top: Tensor, bottom: Tensor, total: dict[str, Tensor], average: str, positive: int
) -> float | None:
    """top / bottom of each class as one number.

    binary     that of the positive class
    macro      the mean over classes
    weighted   the mean weighted by the true rows of each class
    micro      the sum of top over the sum of bottom

    A class that is neither true nor predicted in any row is left out; where only one of the two is
    missing, 0 / 0 counts as 0."""
    if average == "micro":
        return ratio(top.sum(), bottom.sum())
    values = top.double() / bottom.clamp(min=1)
    seen = (total["predicted"] + total["actual"]) > 0
    if average == "binary":
        return finite_or_none(values[positive]) if seen[positive] else None
    if average == "weighted":
        return ratio((values * total["actual"]).sum(), total["actual"].sum())
    return ratio(values[seen].sum(), seen.sum())


def counts_by_score(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(positives, negatives): how many rows of each kind have each distinct score, scores
    ascending; int64.

    `scores` (N,), `truth` bool (N,). Scores that depend on order alone (AUROC, average precision)
    are exact when computed from these."""
    ordered, order = scores.sort()
    _, group, rows = ordered.unique_consecutive(return_inverse=True, return_counts=True)
    positives = rows.new_zeros(len(rows)).index_add_(0, group, truth[order].to(rows.dtype))
    return positives, rows - positives


def one_against_rest(
    outputs: Tensor, target: Tensor, task: Task
) -> Iterator[tuple[Tensor, Tensor]]:
    """(scores, truth) of every ranking of a task: one for two classes, else one per class or label.

    Scores rise with the probability. They come from the logits of the whole split, in float64:
    float32 probabilities near 1 would tie rows that the logits tell apart. One ranking is made at a
    time: all at once would take eight times the memory of the outputs."""
    import torch

    if target.ndim == 2:
        for number in range(outputs.shape[1]):
            yield outputs[:, number], target[:, number] > 0.5
    elif outputs.shape[1] == 2:
        assert isinstance(task, ClassifiesRows)
        positive = task.positive_class
        yield outputs[:, positive].double() - outputs[:, 1 - positive].double(), target == positive
    else:
        whole = torch.cat([rows.double().logsumexp(dim=1) for rows in outputs.split(8192)])
        for number in range(outputs.shape[1]):
            yield (
                outputs[:, number].double() - whole,
                target == number,
            )  # the logarithm of the probability


def mean_of_present(values: list[float | None]) -> float | None:
    """The mean of the values that are not None; None where all are.

    >>> mean_of_present([1.0, None, 2.0])
    1.5
    """
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
