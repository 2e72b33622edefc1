"""Many updates of many trials as one vectorised program: K trainings of one architecture, their weights stacked, stepped together.

The way of a population: `likeness` says which recipes may stand in one stack; `trials` holds what
each trial keeps to itself; `stack` runs K models as one under torch.func; `moving` applies each
trial's own optimizer; `training` is the loop; `pace` measures how many trials at a time pay on this
machine. Begin with `training`."""

from __future__ import annotations

from danlu.training.population.grouping import reason_not_stackable, stack_key
from danlu.training.population.loop import Decision, Outcome, TrialEvaluation, train_population
from danlu.training.population.throughput import (
    StackThroughput,
    measure_throughput,
    seconds_per_update,
)

__all__ = [
    "Decision",
    "Outcome",
    "StackThroughput",
    "TrialEvaluation",
    "measure_throughput",
    "reason_not_stackable",
    "seconds_per_update",
    "stack_key",
    "train_population",
]
