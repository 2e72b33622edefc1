"""Errors of numbers, averaged per target: what mae, mse and rmse share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import Metric
from danlu.parts.metrics._reduce import (
    UNITS,
    UNITS_MEANING,
    by_target,
    differences,
    label_in_units,
    value_names,
)
from danlu.parts.tasks._base import HasUnits
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch


class ErrorOptions(Options):
    """In which units an error is given."""

    units: UNITS = Field("auto", description=UNITS_MEANING)


class ErrorMetric(Metric):
    """The mean over rows of an error per target, 0 or more; with several targets, their mean."""

    def __init__(self, name: str, task: HasUnits, units: str) -> None:
        self.task = task
        self.units = units
        self.label = label_in_units(name, units)

    @abstractmethod
    def errors(self, differences: Tensor) -> Tensor:
        """The error of each difference (..., size), float64, 0 or more."""

    def from_mean(self, mean: Tensor) -> Tensor:
        """The score per target (size,), from the mean error."""
        return mean

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """errors float64 and asked int64, both (size,)."""
        wrong, asked = differences(self.task, outputs, batch.target, self.units)
        return {"errors": self.errors(wrong).flatten(0, -2).sum(dim=0), "asked": asked}

    def score(self, total: dict[str, Tensor]) -> float | dict[str, float | None] | None:
        """The score per target, and their mean."""
        mean = total["errors"] / total["asked"]
        return by_target(self.label, self.from_mean(mean), value_names(self.task))
