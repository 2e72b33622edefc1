"""Any number of labels for each row, each its own yes or no.

The target is several columns of 0 and 1 (one per label), or one column of text with labels joined
by a separator ("red|round"). The model returns one logit per label; its sigmoid is the label's
probability. Labels are in the order of the columns, or sorted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    Answer,
    AnswerLayer,
    EndsInLayer,
    LabelsRows,
    RowTask,
    ScoreOrder,
)
from danlu.parts.tasks._targets import (
    comma_list,
    label_sets,
    percent_text,
    refuse_empty,
    refuse_missing,
)
from danlu.recipe import Options
from danlu.terms import Column, OutputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "labels"
TARGETS = (1, None)
DEFAULTS = {
    "loss": "binary_cross_entropy",
    "metrics": ["f1", "auroc", "accuracy"],
}


class Config(Options):
    """Options of multi_label."""

    threshold: float = Field(
        0.5, gt=0, lt=1, description="A label is predicted where its probability is at least this."
    )
    separator: str = Field(
        "|",
        min_length=1,
        description="The separator of labels in one column of text.",
    )
    empty: Literal["error", "no_labels"] = Field(
        "error",
        description="Whether a missing cell of joined labels is an error, or a row without labels.",
    )


class MultiLabel(LabelsRows, RowTask[np.ndarray], EndsInLayer):
    """The labels, and how outputs (N, labels) become answers."""

    # The loss changes with every row and label; a score at one threshold changes only where a
    # probability crosses it.
    score_order: ScoreOrder = ("loss", "lower")

    def __init__(
        self,
        config: Config,
        targets: list[str],
        labels: list[str],
        label_counts: list[int],
        rows: int,
        joined: bool,
    ) -> None:
        self.config = config
        self.target_names = tuple(targets)
        self.labels = tuple(labels)
        self.classes = self.labels
        self.label_counts = tuple(label_counts)  # training rows with each label, of `rows`
        self.rows = rows
        self.joined = joined  # whether one column of text holds all labels
        self.output = OutputSpec(len(labels), self.labels, means=(("labels", len(labels)),))

    def positive_weights(
        self, chosen: str | float | Mapping[str, float] | None
    ) -> list[float] | None:
        """One weight of "yes" per label: "balanced" (rows without it / rows with it), one for all,
        by name (1 for others), or None."""
        if chosen is None:
            return None
        if chosen == "balanced":
            return [
                (self.rows - count) / count if 0 < count < self.rows else 1.0
                for count in self.label_counts
            ]
        if not isinstance(chosen, Mapping):
            return [float(chosen)] * len(self.labels)
        for name in chosen:
            if name not in self.labels:
                raise DataError(
                    f"{name!r} is not a label; the labels are {comma_list(self.labels)}.",
                    hint=did_you_mean(name, self.labels),
                )
        return [chosen.get(label, 1.0) for label in self.labels]

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "targets": list(self.target_names),
            "labels": list(self.labels),
            "label_counts": list(self.label_counts),
            "rows": self.rows,
            "joined": self.joined,
        }

    def encode(self, targets: Mapping[str, Column]) -> np.ndarray:
        """1 where a row has a label, else 0: float32 (N, labels)."""
        if not self.joined:
            return np.stack([_yes_or_no(targets[name]) for name in self.target_names], axis=1)
        column = targets[self.target_names[0]]
        labels, rows, codes = _joined_labels(column, self.config)
        strange = [label for label in labels if label not in self.labels]
        if strange:
            raise DataError(
                f"the target {column.name} holds the label(s) {comma_list(strange)}, which no "
                "training row has; "
                f"the labels are {comma_list(self.labels)}.",
                hint="mend or leave out those rows, or train with rows of every label",
            )
        column_of = {label: number for number, label in enumerate(self.labels)}
        encoded = np.zeros((len(column), len(self.labels)), dtype=np.float32)
        encoded[rows, np.array([column_of[label] for label in labels], dtype=np.int64)[codes]] = 1
        return encoded

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The probability of each label, float64 (N, labels)."""
        return outputs.double().sigmoid()

    def predicted(self, outputs: Tensor) -> Tensor:
        """Which labels are predicted, bool (N, labels)."""
        return self.probabilities(outputs) >= self.config.threshold

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": [labels], "probabilities": {label: p}} per row."""
        return self._in_words(
            self.predicted(outputs).tolist(), self.probabilities(outputs).tolist()
        )

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"probabilities": float64 (N, labels)}."""
        return {"probabilities": self.probabilities(outputs)}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `answers` gives them, from the arrays of `finish`."""
        rows = arrays["probabilities"].astype(np.float64)
        return self._in_words((rows >= self.config.threshold).tolist(), rows.tolist())

    def _in_words(self, decisions: list[list[bool]], rows: list[list[float]]) -> list[Answer]:
        labels = self.labels
        return [
            {
                "prediction": [label for label, yes in zip(labels, chosen, strict=True) if yes],
                "probabilities": dict(zip(labels, row, strict=True)),
            }
            for chosen, row in zip(decisions, rows, strict=True)
        ]

    def answer_layer(self) -> AnswerLayer:
        """The logistic function of each label's logit."""
        return AnswerLayer("sigmoid")

    def baseline(self, train_target: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Scores of always answering the labels that more than half of the training rows have (log
        loss: with the labels' shares as probabilities)."""
        if not len(target) or not len(train_target):
            return {}
        shares = train_target.astype(np.float64).mean(axis=0)
        scores = {"accuracy": float((target == (shares > 0.5)).all(axis=1).mean())}
        true = np.where(target > 0.5, shares, 1 - shares)
        if true.all():
            scores["log_loss"] = float(-np.log(true).mean())
        return scores

    def describe(self) -> str:
        """'multi_label of tags: 3 labels (red 20 %, round 31 %, sweet 12 % of the rows)'."""
        shares = [percent_text(count / max(self.rows, 1)) for count in self.label_counts]
        pairs = [f"{label} {part}" for label, part in zip(self.labels, shares, strict=True)]
        return (
            f"multi_label of {comma_list(self.target_names)}: {len(pairs):,} labels "
            f"({comma_list(pairs)} of the rows)"
        )


def build(config: Config, targets: Mapping[str, Column]) -> MultiLabel:
    """The task over the labels of the training rows."""
    for column in targets.values():
        refuse_empty(column)
    names = list(targets)
    first = targets[names[0]]
    joined = len(names) == 1 and first.kind in ("category", "text")
    if joined:
        labels, _, codes = _joined_labels(first, config)
        counts = np.bincount(codes, minlength=len(labels)).tolist()
    else:
        labels = names
        counts = [int(_yes_or_no(column).sum()) for column in targets.values()]
    if not sum(counts):
        raise DataError(
            f"the target {comma_list(names)} has no label in {len(first):,} training rows: there "
            "is nothing to learn."
        )
    return MultiLabel(config, names, labels, counts, len(first), joined)


def restore(config: Config, state: Mapping[str, Any]) -> MultiLabel:
    """The task whose `state()` this is."""
    return MultiLabel(
        config,
        state["targets"],
        state["labels"],
        state["label_counts"],
        state["rows"],
        state["joined"],
    )


def _yes_or_no(column: Column) -> np.ndarray:
    """A column of one label as float32 (N,) of 0 and 1."""
    refuse_missing(column)
    if column.kind == "boolean" or (column.kind == "number" and column.values.ndim == 1):
        values = column.values.astype(np.float32)
        wrong = values[(values != 0) & (values != 1)]
        if not len(wrong):
            return values
        reason = f"holds {wrong[0]:g} in {len(wrong):,} of {len(values):,} rows"
    else:
        reason = f"is {column.kind}"
    raise DataError(
        f"the target {column.name} {reason}; a label is 0 or 1.",
        hint=f"set data.columns.{column.name}.kind: boolean, or name one column of joined labels "
        "as data.target",
    )


def _joined_labels(column: Column, config: Config) -> tuple[list[str], np.ndarray, np.ndarray]:
    if config.empty == "error":
        refuse_missing(column)
    return label_sets(column, config.separator)
