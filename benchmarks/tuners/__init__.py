"""Ways to try many values on one network: what `tuning.py` compares.

A tuner offers
  NAME                          what the table calls it
  NEEDS                         the distributions it is made of
  STYLES                        ways to use it, by name: a sentence each
  run(work, style, values) -> Tuned
                                trains work's network once for each of `values` (dicts of dotted names) and scores it after every epoch.
                                What is imported and how tensors come into memory is not timed; what the tuner itself needs is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuned:
    """What a tuner took for its trials.

    `seconds` on the wall in all; of them `start` went by before the first trial began and do not
    grow with their number. `cpu` seconds of all its processes, None where they cannot be counted.
    `scores`: best validation accuracy of each trial, in the order of values, None where it failed.
    """

    seconds: float
    start: float
    cpu: float | None
    scores: list[float | None]
