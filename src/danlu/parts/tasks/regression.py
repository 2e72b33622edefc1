"""Regression: one or several numbers for each row.

Targets are standardised with the mean and standard deviation of the training rows (scale_target),
so that one learning rate suits targets of any unit; answers and metrics are in the units of the
data. Several targets are several outputs of one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.errors import DataError
from danlu.parts.tasks._base import (
    Answer,
    AnswerLayer,
    EndsInLayer,
    PredictsNumbers,
    RowTask,
    ScalesDifferences,
    ScoreOrder,
)
from danlu.parts.tasks._targets import comma_list, number_matrix, refuse_empty
from danlu.recipe import Options
from danlu.terms import Column, OutputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "numbers"
TARGETS = (1, None)
DEFAULTS = {
    "loss": "mse",
    "metrics": ["rmse", "mae", "r2"],
}


class Config(Options):
    """Options of regression."""

    scale_target: bool = Field(
        True,
        description="Standardise the target with the training rows' mean and deviation; answers "
        "and "
        "metrics stay in its units.",
    )


class Regression(PredictsNumbers, RowTask[np.ndarray], ScalesDifferences, EndsInLayer):
    """The target numbers, and how outputs (N, size) become answers."""

    # The loss is what is trained, has one unit for several targets, and orders models as rmse does
    # where it is mse.
    score_order: ScoreOrder = ("loss", "lower")

    def __init__(
        self,
        target_names: list[str],
        widths: list[int],
        names: list[str],
        mean: list[float],
        deviation: list[float],
        scaled: bool,
    ) -> None:
        self.target_names = tuple(target_names)
        self.widths = tuple(widths)  # numbers of each target column
        self.output = OutputSpec(len(names), tuple(names))
        self.scaled = scaled
        self.mean = np.array(mean)  # float64 (size,), of the training rows
        self.deviation = np.array(deviation)
        self._offset = mean if scaled else [0.0] * len(mean)
        self._unit = deviation if scaled else [1.0] * len(mean)

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "targets": list(self.target_names),
            "widths": list(self.widths),
            "names": list(self.output.names),
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "scaled": self.scaled,
        }

    def encode(self, targets: Mapping[str, Column]) -> np.ndarray:
        """The targets on the model's scale, float32 (N, size)."""
        values = _side_by_side(targets, self.target_names)
        if values.shape[1] != self.output.size:
            raise DataError(
                f"the target {', '.join(self.target_names)} holds {values.shape[1]} numbers per "
                f"row; training had {self.output.size}."
            )
        with np.errstate(over="ignore"):
            encoded = ((values - self.mean) / self.deviation if self.scaled else values).astype(
                np.float32
            )
        if not np.isfinite(encoded).all():
            column = int((~np.isfinite(encoded)).any(axis=0).argmax())
            raise DataError(
                f"the target {self.output.names[column]} reaches "
                f"{np.abs(values[:, column]).max():g}, too large for float32.",
                hint="set task.scale_target: true" if not self.scaled else "mend those rows",
            )
        return encoded

    def to_units(self, outputs: Tensor) -> Tensor:
        """Outputs or encoded targets (N, size) in the units of the data, float64."""
        return outputs.double() * _like(self._unit, outputs) + _like(self._offset, outputs)

    def in_units(self, differences: Tensor) -> Tensor:
        """Differences of outputs and encoded targets (N, size) in the units of the data,
        float64."""
        return differences.double() * _like(self._unit, differences)

    def in_deviations(self, differences: Tensor) -> Tensor:
        """Differences of outputs and encoded targets (N, size) in standard deviations of the
        training rows, float64."""
        return (
            differences.double()
            if self.scaled
            else differences.double() / _like(self.deviation, differences)
        )

    def standardised(self, outputs: Tensor) -> Tensor:
        """Outputs or encoded targets (N, size) as deviations from the training rows' mean, in their
        standard deviations, float64, whether scale_target is set or not."""
        if self.scaled:
            return outputs.double()
        return (outputs.double() - _like(self.mean, outputs)) / _like(self.deviation, outputs)

    def predicted(self, outputs: Tensor) -> Tensor:
        """The answers as numbers, float64 (N, size)."""
        return self.to_units(outputs)

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": number} per row; with several numbers {"prediction": {name: number}}."""
        return self._in_words(self.to_units(outputs).tolist())

    def _in_words(self, rows: list[list[float]]) -> list[Answer]:
        if self.output.size == 1:
            return [{"prediction": value} for (value,) in rows]
        return [{"prediction": dict(zip(self.output.names, row, strict=True))} for row in rows]

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"predictions": float64 (N, size)}, in the units of the data."""
        return {"predictions": self.to_units(outputs)}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `answers` gives them, from the arrays of `finish`."""
        return self._in_words(arrays["predictions"].astype(np.float64).tolist())

    def difference_scales(self) -> dict[str, np.ndarray]:
        """The deviation of the training rows, for "predictions"."""
        return {"predictions": self.deviation}

    def answer_layer(self) -> AnswerLayer:
        """From the model's scale to the units of the data."""
        import torch

        ends = self.to_units(torch.tensor([[0.0] * self.output.size, [1.0] * self.output.size]))
        scale, offset = ends[1] - ends[0], ends[0]
        return AnswerLayer("rescale", tuple(scale.tolist()), tuple(offset.tolist()))

    def baseline(self, train_target: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Scores of always answering the mean of the training rows, in the units of the data; means
        over several targets."""
        if not len(target) or not len(train_target):
            return {}
        unit = np.array(self._unit)
        truth = target.astype(np.float64) * unit
        wrong = truth - train_target.astype(np.float64).mean(axis=0) * unit
        squared = np.square(wrong).mean(axis=0)
        spread = truth.var(axis=0)
        scores = {
            "mse": float(squared.mean()),
            "rmse": float(np.sqrt(squared).mean()),
            "mae": float(np.abs(wrong).mean()),
        }
        if spread.all():
            scores["r2"] = float((1 - squared / spread).mean())
        return scores

    def describe(self) -> str:
        """'regression of price: mean 206,856, standard deviation 115,396'."""
        if self.output.size == 1:
            detail = f"mean {self.mean[0]:,.6g}, standard deviation {self.deviation[0]:,.6g}"
        else:
            detail = f"{self.output.size} numbers"
        return f"regression of {comma_list(self.output.names)}: {detail}"


def _like(numbers: np.ndarray | list[float], tensor: Tensor) -> Tensor:
    """The numbers as a float64 tensor on the tensor's device."""
    import torch

    return torch.tensor(np.asarray(numbers), dtype=torch.float64, device=tensor.device)


def build(config: Config, targets: Mapping[str, Column]) -> Regression:
    """The task, with mean and deviation of the training rows."""
    for column in targets.values():
        refuse_empty(column)
    values = _side_by_side(targets, tuple(targets))
    names, widths = [], []
    for name, column in targets.items():
        width = 1 if column.values.ndim == 1 else column.values.shape[1]
        widths.append(width)
        inner = (
            column.names if len(column.names) == width else [str(number) for number in range(width)]
        )
        names += (
            [name] if column.values.ndim == 1 else [f"{name}.{part_name}" for part_name in inner]
        )
    center = values.mean(axis=0)
    deviation = values.std(axis=0)
    constant = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
    if len(constant):
        raise DataError(
            f"the target {names[constant[0]]} is {values[0, constant[0]]:g} in all "
            f"{len(values):,} training rows: "
            "there is nothing to learn.",
            hint="look at data.target and at the split",
        )
    return Regression(
        list(targets), widths, names, center.tolist(), deviation.tolist(), config.scale_target
    )


def restore(config: Config, state: Mapping[str, Any]) -> Regression:
    """The task whose `state()` this is."""
    return Regression(
        state["targets"],
        state["widths"],
        state["names"],
        state["mean"],
        state["deviation"],
        state["scaled"],
    )


def _side_by_side(targets: Mapping[str, Column], names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([number_matrix(targets[name]) for name in names], axis=1)
