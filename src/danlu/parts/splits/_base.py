"""The contract of a split: which rows are for training, validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from danlu.recipe import Options
    from danlu.terms import Column, Table


@dataclass(frozen=True)
class Split:
    """What a split's module offers; `danlu.registry.split(name)` reads it."""

    # build(config, table, target, seed) -> {"train": rows, "validation": rows, "test": rows}: row
    # numbers as int64 arrays, sorted ascending and disjoint; a pure function of its arguments.
    # `target` is the first target column, None where the task has none. Only "validation" and
    # "test" may be empty or missing. DataError with the remedy when a share that was asked for
    # comes out empty.
    build: Callable[[Options, Table, Column | None, int], dict[str, np.ndarray]]

    # decided_by(config) -> str: the column whose values decide the split, which is therefore no
    # input of the model. None: every column may be an input.
    decided_by: Callable[[Options], str] | None = None
