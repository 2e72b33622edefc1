"""Several targets of different kinds from one model, each with its own task, loss and weight.

The model's outputs (N, size) are the tasks' outputs side by side. A target column not named under
`targets` gets its task by its kind: numbers regression (0 and 1 alone: classification), categories
and booleans classification.

    data: {target: [price, kind, red, round]}
    task:
      name: multi_task
      targets:
        price: {task: regression, weight: 2.0}
        look: {task: {name: multi_label, threshold: 0.4}, columns: [red, round]}

`kind` is then a classification with weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from danlu import registry
from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    Answer,
    CombinesTasks,
    RowTask,
    ScalesDifferences,
    ScoreOrder,
    Task,
)
from danlu.parts.tasks._targets import comma_list
from danlu.recipe import Options, Part
from danlu.registry_options import TaskPart, part_of
from danlu.terms import Column, OutputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "several"
TARGETS = (1, None)
DEFAULTS = {
    "loss": "weighted",
    "metrics": ["per_target"],
}
BY_KIND = {"number": "regression", "category": "classification", "boolean": "classification"}


class Target(Options):
    """The task of one target."""

    task: TaskPart | None = Field(
        None,
        description="classification, regression or multi_label, with options; null: by the "
        "column's "
        "kind.",
    )
    weight: float = Field(1.0, gt=0, description="Weight of its loss in the sum.")
    columns: list[str] | None = Field(
        None, min_length=1, description="Its target columns; null: the column of the same name."
    )

    @field_validator("task")
    @classmethod
    def _not_nested(cls, task: Part | None) -> Part | None:
        if task is not None and task.name == "multi_task":
            raise ValueError("must be a single task: multi_task cannot hold itself")
        return task


class Config(Options):
    """Options of multi_task."""

    targets: dict[str, Target] = Field(
        {}, description="The task, loss weight and columns of each target by name."
    )


class MultiTask(CombinesTasks, RowTask[dict[str, np.ndarray]], ScalesDifferences):
    """The tasks by target name, and which outputs belong to which."""

    # The one number that all targets share, in the weights of the recipe.
    score_order: ScoreOrder = ("loss", "lower")

    def __init__(
        self,
        parts: Mapping[str, Part],
        tasks: Mapping[str, RowTask[np.ndarray]],
        columns: Mapping[str, list[str]],
        weights: Mapping[str, float],
    ) -> None:
        self.parts = dict(parts)
        self.tasks = dict(tasks)
        self.columns = dict(columns)
        self.weights = dict(weights)
        self.target_names = tuple(column for each in columns.values() for column in each)
        self.slices: dict[str, slice] = {}
        start = 0
        for name, task in self.tasks.items():
            self.slices[name] = slice(start, start + task.output.size)
            start += task.output.size
        names = tuple(
            f"{target}/{name}" for target, task in self.tasks.items() for name in task.output.names
        )
        groups = [
            task.output.means or (("numbers", task.output.size),) for task in self.tasks.values()
        ]
        self.output = OutputSpec(
            start, names, means=tuple(group for each in groups for group in each)
        )

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            name: {
                "task": self.parts[name].as_dict(),
                "columns": self.columns[name],
                "weight": self.weights[name],
                "state": task.state(),
            }
            for name, task in self.tasks.items()
        }

    def encode(self, targets: Mapping[str, Column]) -> dict[str, np.ndarray]:
        """The encoded target of each task, by target name."""
        return {
            name: task.encode({column: targets[column] for column in self.columns[name]})
            for name, task in self.tasks.items()
        }

    def outputs_of(self, name: str, outputs: Tensor) -> Tensor:
        """The outputs (N, its size) that belong to target `name`."""
        return outputs[:, self.slices[name]]

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": {target: value}, "probabilities": {target: {class: p}}} per row;
        probabilities where a task has them."""
        return self._together(
            {
                name: task.answers(self.outputs_of(name, outputs))
                for name, task in self.tasks.items()
            }
        )

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """The finished tensors of each task, as "target/name"."""
        return {
            f"{name}/{key}": tensor
            for name, task in self.tasks.items()
            for key, tensor in task.finish(module, inputs, self.outputs_of(name, outputs)).items()
        }

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `answers` gives them, from the arrays of `finish`."""
        of = {
            name: {
                key.removeprefix(f"{name}/"): array
                for key, array in arrays.items()
                if key.startswith(f"{name}/")
            }
            for name in self.tasks
        }
        return self._together(
            {name: task.answers_from_arrays(of[name], beside) for name, task in self.tasks.items()}
        )

    def difference_scales(self) -> dict[str, np.ndarray]:
        """The scales of each task, as "target/name"."""
        scales_of = {
            name: task.difference_scales()
            for name, task in self.tasks.items()
            if isinstance(task, ScalesDifferences)
        }
        return {
            f"{name}/{key}": scale
            for name, scales in scales_of.items()
            for key, scale in scales.items()
        }

    def _together(self, answers_by_target: Mapping[str, list[Answer]]) -> list[Answer]:
        likely = [
            name for name, rows in answers_by_target.items() if rows and "probabilities" in rows[0]
        ]
        names = list(answers_by_target)
        answers = []
        for row in zip(*answers_by_target.values(), strict=True):
            by_name = dict(zip(names, row, strict=True))
            answer: Answer = {
                "prediction": {name: inner["prediction"] for name, inner in by_name.items()}
            }
            if likely:
                answer["probabilities"] = {name: by_name[name]["probabilities"] for name in likely}
            answers.append(answer)
        return answers

    def baseline(
        self, train_target: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """The baseline of each task, as "target/score"."""
        return {
            f"{name}/{score}": value
            for name, task in self.tasks.items()
            for score, value in task.baseline(train_target[name], target[name]).items()
        }

    def describe(self) -> str:
        """'2 targets: classification of income: ...; regression of hours: ...'."""
        return f"{len(self.tasks)} targets: " + "; ".join(
            task.describe() for task in self.tasks.values()
        )


def build(config: Config, targets: Mapping[str, Column]) -> MultiTask:
    """The task of every target, over its columns of the training rows."""
    settings = dict(config.targets)
    spoken_for = {
        column for name, target in settings.items() for column in target.columns or [name]
    }
    settings |= {name: Target() for name in targets if name not in spoken_for}  # type: ignore[call-arg]
    _refuse_strange_columns(settings, targets)
    parts, tasks, columns = {}, {}, {}
    for name, target in settings.items():
        columns[name] = target.columns or [name]
        parts[name] = target.task or _by_kind(targets[columns[name][0]])
        task = registry.build_task(
            parts[name], {column: targets[column] for column in columns[name]}
        )
        tasks[name] = _row_task(name, parts[name], task)
    return MultiTask(
        parts, tasks, columns, {name: target.weight for name, target in settings.items()}
    )


def restore(config: Config, state: Mapping[str, Any]) -> MultiTask:
    """The tasks whose `state()` this is."""
    parts = {name: part_of("tasks", entry["task"]) for name, entry in state.items()}
    tasks = {
        name: _row_task(name, parts[name], registry.restore_task(parts[name], entry["state"]))
        for name, entry in state.items()
    }
    columns = {name: list(entry["columns"]) for name, entry in state.items()}
    return MultiTask(
        parts, tasks, columns, {name: entry["weight"] for name, entry in state.items()}
    )


def _row_task(name: str, part: Part, task: Task) -> RowTask[np.ndarray]:
    """The task of a target, which must be a task of rows. DataError."""
    if not isinstance(task, RowTask):
        raise DataError(
            f"task.targets.{name} is {part.name}, whose answers are not made row by row.",
            hint="choose classification, regression or multi_label",
        )
    return task


def _refuse_strange_columns(settings: Mapping[str, Target], targets: Mapping[str, Column]) -> None:
    for name, target in settings.items():
        for column in target.columns or [name]:
            if column not in targets:
                raise DataError(
                    f"task.targets.{name} asks for the column {column}, and data.target names "
                    f"{comma_list(list(targets))}.",
                    hint=did_you_mean(column, list(targets)) or f"add {column} to data.target",
                )


def _by_kind(column: Column) -> Part:
    name = BY_KIND.get(column.kind)
    if (
        name == "regression"
        and column.values.ndim == 1
        and bool(np.isin(column.values, (0, 1)).all())
    ):
        name = "classification"
    if name is None:
        raise DataError(
            f"the target {column.name} is {column.kind}, for which there is no default task.",
            hint=f"name one under task.targets.{column.name}.task",
        )
    return part_of("tasks", name)
