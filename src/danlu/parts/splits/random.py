"""Rows drawn at random into validation and test; the same seed draws the same rows."""

from __future__ import annotations

import numpy as np

from danlu.data.splitting import Shares, divided, shuffled, sizes
from danlu.terms import Column, Table


class Config(Shares):
    """Shares of validation and test."""


def build(config: Config, table: Table, target: Column | None, seed: int) -> dict[str, np.ndarray]:
    """Rows of each split, sorted; every row has the same chance."""
    validation, test = sizes(len(table), config, table.origin)
    return divided(shuffled(len(table), seed), validation, test)
