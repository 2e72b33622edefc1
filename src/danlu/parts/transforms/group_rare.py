"""Categories seen only a few times in the training rows share one category, "(rare)".

From a handful of rows nothing can be learnt that holds elsewhere. Where training had rare
categories, one never seen counts as rare too; where it had none, it is missing."""

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
    """How seldom is rare."""

    minimum: int | Literal["auto"] = Field(
        default="auto",
        description="Training rows a category needs to stay itself; auto: a hundredth of the rows, at least 2 and at most 5.",
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Config:
        if self.minimum != "auto" and self.minimum < 1:
            raise ValueError("minimum must be at least 1")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"kept": the categories that stay, sorted; "rare": the name of the shared one, or null where
    none is rare}."""
    minimum = min(max(len(column) // 100, 2), 5) if config.minimum == "auto" else config.minimum
    counts = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
    kept = sorted(column.categories[code] for code in np.flatnonzero(counts >= minimum))
    rare = int(((counts > 0) & (counts < minimum)).sum())
    if not rare:
        return {"kept": kept, "rare": None}
    name = "(rare)"
    while name in kept:
        name = f"({name})"
    notice = f"{rare:,} of {rare + len(kept):,} categories are seen in fewer than {minimum} training rows and count as one, {name}."
    return {"kept": kept, "rare": name, "notice": notice}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """The column over the categories that stay and, where there is one, the shared one."""
    kept, rare = state["kept"], state["rare"]
    code = {category: index for index, category in enumerate(kept)}
    other = -1 if rare is None else len(kept)
    lookup = np.array(
        [*(code.get(category, other) for category in column.categories), -1], dtype=np.int32
    )
    categories = (*kept,) if rare is None else (*kept, rare)
    return replace(
        column, values=lookup[column.values], categories=categories
    )  # code -1 takes the last entry


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
