"""Many trainings of one architecture as one vectorised program: the weights of K trials are stacked
and updated together.

Begin with `loop`. `grouping` says which recipes can be stacked, `trial_state` holds what each trial
has of its own, `stack` runs K models as one under torch.func.vmap, `batched_layers` gives layers a
faster form for that, `batched_optimizer` applies each trial's own optimizer, and `throughput`
measures how many trials to stack on this machine."""

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
