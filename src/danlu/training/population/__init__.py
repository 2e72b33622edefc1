"""Many updates of many trials as one vectorised program: K trainings of one architecture, their weights stacked, stepped together.

The way of a population: `likeness` says which recipes may stand in one stack; `lanes` holds what
each trial keeps to itself; `stack` runs K models as one under torch.func; `moving` applies each
trial's own optimizer; `training` is the loop; `pace` measures how many trials at a time pay on this
machine. Begin with `training`."""

from __future__ import annotations

from danlu.training.population.grouping import shape_key, why_not
from danlu.training.population.loop import Decision, Event, Outcome, train_population
from danlu.training.population.throughput import Pace, measure_pace, seconds_alone

__all__ = [
    "Decision",
    "Event",
    "Outcome",
    "Pace",
    "measure_pace",
    "seconds_alone",
    "shape_key",
    "train_population",
    "why_not",
]
