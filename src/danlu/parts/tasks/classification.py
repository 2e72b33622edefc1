"""One class out of two or more for each row, with the probabilities of all.

The target is a category, a boolean, or a number with few distinct whole values. The model returns
one logit per class, classes sorted (numbers by size); probabilities are their softmax. Two classes
are no special case: the softmax over two logits is the logistic function of their difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    Answer,
    AnswerLayer,
    ClassifiesRows,
    ClassValue,
    EndsInLayer,
    RowTask,
    ScoreOrder,
)
from danlu.parts.tasks._targets import (
    class_text,
    comma_list,
    distinct_values,
    int_if_whole,
    percent_text,
    refuse_empty,
    sort_classes,
)
from danlu.recipe import Options
from danlu.terms import Column, OutputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "classes"
TARGETS = (1, 1)
DEFAULTS = {
    "loss": "cross_entropy",
    "metrics": ["accuracy", "f1", "auroc", "confusion_matrix"],
    "data.split": "stratified",
}


class Config(Options):
    """Options of classification."""

    positive: str | int | bool | None = Field(
        None,
        description="With two classes, the one that precision, recall, F1 and average precision "
        "count; null: the second in order.",
    )


class Classification(ClassifiesRows, RowTask[np.ndarray], EndsInLayer):
    """The classes of one target column, and how outputs (N, classes) become answers."""

    # The loss, not the accuracy: where one class is rare a model can improve for long while its
    # accuracy stays at the share of the common class, and on a small validation split many epochs
    # tie. Chosen by loss, test accuracy was the same on Adult and 14,000 rows of
    # Fashion-MNIST and 0.3 points better on digits (30 runs of an mlp, paired).
    score_order: ScoreOrder = ("loss", "lower")

    def __init__(
        self,
        target: str,
        classes: list[ClassValue],
        class_counts: list[int],
        positive: ClassValue | None = None,
    ) -> None:
        self.target_names = (target,)
        self.classes = tuple(classes)
        self.class_counts = tuple(class_counts)  # of the training rows
        self.output = OutputSpec(
            len(classes),
            tuple(class_text(value) for value in classes),
            means=(("classes", len(classes)),),
        )
        self.positive_class = len(classes) - 1 if positive is None else self.class_number(positive)
        self._index_of = {text: number for number, text in enumerate(self.output.names)}

    def class_number(self, value: ClassValue) -> int:
        """The number of a class, named as in the recipe; DataError where there is no such class."""
        text = class_text(value)
        if text not in self.output.names:
            raise DataError(
                f"{text!r} is not a class of {self.target_names[0]}; its classes are "
                f"{comma_list(self.classes)}.",
                hint=did_you_mean(text, self.output.names),
            )
        return self.output.names.index(text)

    def class_weights(self, chosen: str | Mapping[str, float] | None) -> list[float] | None:
        """One weight per class: "balanced" (rows / (classes * rows of the class)), by name (1 for
        others), or None."""
        if chosen is None:
            return None
        if isinstance(chosen, str):
            return [
                sum(self.class_counts) / (len(self.classes) * count) for count in self.class_counts
            ]
        weights = [1.0] * len(self.classes)
        for name, weight in chosen.items():
            weights[self.class_number(name)] = weight
        return weights

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "target": self.target_names[0],
            "classes": list(self.classes),
            "class_counts": list(self.class_counts),
            "positive": self.classes[self.positive_class],
        }

    def encode(self, targets: Mapping[str, Column]) -> np.ndarray:
        """The class numbers of the target column, int64 (N,)."""
        column = targets[self.target_names[0]]
        values, codes = distinct_values(column)
        table = np.array(
            [self._index_of.get(class_text(value), -1) for value in values], dtype=np.int64
        )
        numbers = table[codes]
        if len(numbers) and numbers.min() < 0:
            strange = np.unique(codes[numbers < 0])
            raise DataError(
                f"the target {column.name} holds {comma_list([values[code] for code in strange])} "
                f"in {int((numbers < 0).sum()):,} rows, "
                f"which no training row has; the classes are {comma_list(self.classes)}.",
                hint="mend or leave out those rows, or train with rows of every class "
                "(data.split: stratified)",
            )
        return numbers

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The probability of each class, float64 (N, classes)."""
        return outputs.double().softmax(dim=1)

    def predicted(self, outputs: Tensor) -> Tensor:
        """The number of the likeliest class, int64 (N,); ties go to the first."""
        return outputs.argmax(dim=1)

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": class, "probabilities": {class: p}} per row."""
        classes = self.classes
        likeliest = self.predicted(outputs).tolist()
        rows = self.probabilities(outputs).tolist()
        return [
            {"prediction": classes[best], "probabilities": dict(zip(classes, row, strict=True))}
            for best, row in zip(likeliest, rows, strict=True)
        ]

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"probabilities": float64 (N, classes)}."""
        return {"probabilities": self.probabilities(outputs)}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `answers` gives them, from the arrays of `finish`."""
        rows = arrays["probabilities"].astype(np.float64)
        likeliest = rows.argmax(axis=1).tolist()
        return [
            {
                "prediction": self.classes[best],
                "probabilities": dict(zip(self.classes, row, strict=True)),
            }
            for best, row in zip(likeliest, rows.tolist(), strict=True)
        ]

    def answer_layer(self) -> AnswerLayer:
        """The softmax over the classes."""
        return AnswerLayer("softmax")

    def baseline(self, train_target: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Scores of always answering the most frequent class of the training rows (log loss: with
        the class shares as probabilities)."""
        counts = np.bincount(train_target, minlength=len(self.classes))
        if not len(target) or not counts.sum():
            return {}
        scores = {"accuracy": float(np.mean(target == counts.argmax()))}
        shares = counts[target] / counts.sum()
        if shares.all():  # a class without training rows has no finite log loss
            scores["log_loss"] = float(-np.log(shares).mean())
        return scores

    def describe(self) -> str:
        """'classification of income: 2 classes (<=50K 76 %, >50K 24 %)'."""
        shares = np.array(self.class_counts) / max(sum(self.class_counts), 1)
        names = self.output.names
        if len(names) <= 5:
            detail = ", ".join(
                f"{name} {percent_text(part)}" for name, part in zip(names, shares, strict=True)
            )
        else:
            most, least = int(shares.argmax()), int(shares.argmin())
            detail = (
                f"commonest {names[most]} {percent_text(shares[most])}, rarest {names[least]} "
                f"{percent_text(shares[least])}"
            )
        return f"classification of {self.target_names[0]}: {len(names):,} classes ({detail})"


def build(config: Config, targets: Mapping[str, Column]) -> Classification:
    """The task over the classes of the training rows."""
    ((name, column),) = targets.items()
    refuse_empty(column)
    _refuse_continuous(column)
    values, codes = distinct_values(column)
    counts = np.bincount(codes, minlength=len(values))
    count_of = {value: int(count) for value, count in zip(values, counts, strict=True) if count}
    classes = sort_classes(list(count_of))
    if len(classes) < 2:
        raise DataError(
            f"the target {name} is {class_text(classes[0])} in all {len(column):,} training rows: "
            "there is nothing to learn.",
            hint="look at data.target and at the split",
        )
    return Classification(name, classes, [count_of[value] for value in classes], config.positive)


def restore(config: Config, state: Mapping[str, Any]) -> Classification:
    """The task whose `state()` this is."""
    return Classification(
        state["target"], state["classes"], state["class_counts"], state["positive"]
    )


def _refuse_continuous(column: Column) -> None:
    """A number target must be whole with few distinct values: at most 20, or a tenth of the rows.
    DataError."""
    if column.kind != "number" or column.values.ndim != 1:
        return
    present = column.values[~column.is_missing()]
    broken = present[present != np.floor(present)]
    reason = ""
    if len(broken):
        reason = (
            f"{len(broken):,} of {len(column):,} rows hold broken numbers such as {broken[0]:g}"
        )
    else:
        values = np.unique(present)
        if len(values) > max(20, len(column) // 10):
            reason = (
                f"{len(values):,} distinct values from {int_if_whole(values[0])} to "
                f"{int_if_whole(values[-1])} in {len(column):,} rows"
            )
    if reason:
        raise DataError(
            f"the target {column.name} is a number that looks continuous ({reason}); "
            "classification needs few distinct values.",
            hint=f"choose task: regression, or set data.columns.{column.name}.kind: category if "
            "the numbers are names",
        )
