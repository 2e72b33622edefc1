"""Compare optimizers, learning rates or models: each at its own learning rate, over several seeds.

The way of a comparison: `contestants` makes recipes of the values that are compared; `runs` trains
them, many as one program where that is faster, and stores each result; `learning_rates` says which
learning rates are tried; `statistics` computes means with confidence intervals; `charts` draws
them. Begin with `compare`.
"""

from __future__ import annotations

from danlu.comparison.compare import compare
from danlu.comparison.contestants import split_words
from danlu.comparison.statistics import Comparison, Standing

__all__ = ["Comparison", "Standing", "compare", "split_words"]
