"""The losses of several targets, each times its weight (task.targets.NAME.weight).

Each target takes its task's own default loss unless `losses` names another. The loss is the sum
over targets of weight times mean loss, each mean over its own rows and weights, so that a target of
many numbers does not outweigh one of a single class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu import registry
from danlu.errors import Problem, RecipeError, did_you_mean
from danlu.parts.losses._base import Loss
from danlu.parts.tasks._base import CombinesTasks
from danlu.recipe import Options
from danlu.registry_options import LossPart, part_of
from danlu.terms import Batch

if TYPE_CHECKING:
    from torch import Tensor

FITS = ("several",)


class Config(Options):
    """Options of weighted."""

    losses: dict[str, LossPart] = Field(
        {}, description="The loss of each target by name; targets not named take their task's own."
    )


class Weighted(Loss):
    """One entry per target: the weighted sum of its loss, and its count."""

    def __init__(self, task: CombinesTasks, losses: dict[str, Loss]) -> None:
        import torch

        self._stack = torch.stack
        self.losses = [
            (name, task.slices[name], task.weights[name], loss) for name, loss in losses.items()
        ]

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        sums, counts = [], []
        for name, columns, weight, loss in self.losses:
            total, count = loss(
                outputs[:, columns], Batch(batch.inputs, batch.target[name], batch.rows)
            )
            sums.append(total if weight == 1 else weight * total)
            counts.append(count)
        return self._stack(sums), self._stack(counts)

    def count(self, batch: Batch) -> Tensor:
        """The count of each target, (targets,)."""
        return self._stack(
            [
                loss.count(Batch(batch.inputs, batch.target[name], batch.rows))
                for name, _, _, loss in self.losses
            ]
        )


def build(config: Config, task: CombinesTasks) -> Weighted:
    """The losses in the order of the task's targets. Raises RecipeError for a name that is no
    target and for a loss that does not fit."""
    for name in config.losses:
        if name not in task.tasks:
            targets = list(task.tasks)
            message = f"loss.losses.{name}: there is no such target, only {', '.join(targets)}."
            raise RecipeError([Problem("recipe", message, did_you_mean(name, targets))])
    losses = {}
    for name, inner in task.tasks.items():
        kind = task.parts[name].name
        part = config.losses.get(name) or part_of(
            "losses", registry.defaults("tasks", kind)["loss"]
        )
        fitting = registry.task_facts(kind).losses
        if part.name not in fitting:
            message = f"loss.losses.{name}: the loss {part.name} does not fit the task {kind}."
            raise RecipeError([Problem("recipe", message, f"it takes {', '.join(fitting)}")])
        losses[name] = registry.build_loss(part, inner)
    return Weighted(task, losses)
