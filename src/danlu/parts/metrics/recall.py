"""Recall: of the rows that truly have a class, the share that were given it.

With two classes it is that of the positive class (task.positive), with more the mean over classes
(macro), unless `average` says otherwise. A class that is neither true nor given anywhere is left
out; one that is one of the two and has 0 / 0 counts as 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from danlu.parts.losses._reduce import AVERAGES, averaged, chosen_average, tally
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("classes", "labels")
BETTER = "higher"


class Config(Options):
    """Options of recall."""

    average: AVERAGES = Field(
        "auto",
        description="How classes become one number: binary (the positive class), macro (mean), weighted (mean by true rows), "
        "micro (all rows together); auto: binary for two classes, else macro.",
    )


class Recall:
    """Right, given and true rows a class."""

    def __init__(self, task: Any, average: str) -> None:
        self.task = task
        self.average = chosen_average(average, "recall", task)
        self.label = "recall" if average == "auto" else f"recall_{average}"

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """right, predicted, actual: int64 (classes,)."""
        return tally(self.task.predicted(outputs), batch.target, self.task.output.size)

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The share, 0 to 1."""
        positive = getattr(self.task, "positive_class", 0)
        return averaged(total["right"], total["actual"], total, self.average, positive)


def build(config: Config, task: Any) -> Recall:
    """The metric."""
    return Recall(task, config.average)
