"""Which optimizer, which learning rate, which architecture: contestants trained alike, each at its own learning rate, over several seeds.

The way of a comparison: `contestants` makes recipes of what is asked; `trainings` runs trainings,
many as one program where that pays, and keeps each result; `rates` says which learning rates are
tried; `verdict` makes numbers with confidence intervals of the results; `pictures` draws them.
Begin with `comparing`."""

from __future__ import annotations

from danlu.comparison.compare import compare
from danlu.comparison.contestants import split_words
from danlu.comparison.statistics import Comparison, Standing

__all__ = ["Comparison", "Standing", "compare", "split_words"]
