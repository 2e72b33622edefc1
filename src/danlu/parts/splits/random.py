"""Rows drawn at random for validation and test; the same seed draws the same rows."""

from __future__ import annotations

import numpy as np

from danlu.data.splitting import SplitSizes, divide_rows, rows_per_split, shuffled_rows
from danlu.terms import Column, Table


class Config(SplitSizes):
    """Shares of validation and test."""


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted; every row has the same chance."""
    validation, test = rows_per_split(len(table), config, table.origin)
    return divide_rows(shuffled_rows(len(table), seed), validation, test)
