"""Categories with few training rows are merged into one category, "(rare)".

What a model learns from a handful of rows does not generalise. A category that training never saw
counts as rare too where training had rare categories, and as missing where it had none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("category",)


class Config(Options):
    """Which categories count as rare."""

    minimum: int | Literal["auto"] = Field(
        default="auto",
        description="Training rows a category needs not to be rare; auto: a hundredth of the "
        "rows, at least 2 and at most 5.",
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Config:
        if self.minimum != "auto" and self.minimum < 1:
            raise ValueError("minimum must be at least 1")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"kept": the categories that are not rare, sorted; "rare": the name of the merged category,
    null where none is rare}."""
    minimum = min(max(len(column) // 100, 2), 5) if config.minimum == "auto" else config.minimum
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
    kept = sorted(column.categories[code] for code in np.flatnonzero(counts >= minimum))
    rare = int(((counts > 0) & (counts < minimum)).sum())
    if not rare:
        return {"kept": kept, "rare": None}
    name = "(rare)"
    while name in kept:
        name = f"({name})"
    notice = (
        f"{rare:,} of {rare + len(kept):,} categories are seen in fewer than {minimum} "
        f"training rows and count as one, {name}."
    )
    return {"kept": kept, "rare": name, "notice": notice}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The column with the kept categories and, where there is one, the merged category."""
    kept, rare = state["kept"], state["rare"]
    code = {category: index for index, category in enumerate(kept)}
    other = -1 if rare is None else len(kept)
    lookup = np.array(
        [*(code.get(category, other) for category in column.categories), -1], dtype=np.int32
    )
    categories = (*kept,) if rare is None else (*kept, rare)
    # code -1 (missing) takes the last entry of lookup
    return replace(column, values=lookup[column.values], categories=categories)


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    kept, rare = state["kept"], state["rare"]
    names = ["", *kept] if rare is None else ["", *kept, rare]
    table = {name: code for code, name in enumerate(names)}
    codes = graph.lookup(
        value.at,
        {category: table[category] for category in ["", *kept]},
        0 if rare is None else len(names) - 1,
    )
    return replace(
        value, at=graph.add("Gather", [graph.constant(np.array(names, dtype=object)), codes])
    )
