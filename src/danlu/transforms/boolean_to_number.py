"""True and false as 1 and 0; a missing value stays missing, so let impute follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from danlu.features import numbers
from danlu.recipe import Options
from danlu.terms import Column

TAKES = ("boolean",)


class Config(Options):
    """No options."""


def fit(config: Config, column: Column) -> dict[str, Any]:
    """Nothing is learnt."""
    return {}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float64: 1, 0 or NaN."""
    values = np.where(column.values < 0, np.nan, column.values.astype(np.float64))
    return numbers(column, values[:, None], [column.name])
