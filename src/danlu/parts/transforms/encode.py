"""Categories as codes for an embedding: 1, 2, 3, ... by name; 0 for unknown and missing ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.recipe import Options
from danlu.terms import Column

if TYPE_CHECKING:
    from danlu.parts.transforms._onnx_graph import Graph, Value

TAKES = ("category",)


class Config(Options):
    """No options."""


def fit(config: Config, column: Column) -> dict[str, Any]:
    """{"known": the categories of the training rows, sorted}."""
    seen = np.unique(column.values[column.values >= 0])
    return {"known": sorted(column.categories[code] for code in seen)}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A category column of codes 0 to len(known), none of them missing."""
    codes = state["known"]
    code = {category: index for index, category in enumerate(codes, start=1)}
    lookup = np.array(
        [*(code.get(category, 0) for category in column.categories), 0], dtype=np.int32
    )
    unknown = "(unknown)"
    while unknown in code:
        unknown = f"({unknown})"
    # code -1 (missing) takes the last entry of lookup
    return replace(column, values=lookup[column.values], categories=(unknown, *codes))


def graph(config: Config, state: dict[str, Any], graph: Graph, value: Value) -> Value:
    """`apply` in an ONNX graph."""
    codes = {category: code for code, category in enumerate(state["known"], start=1)}
    return replace(value, at=graph.lookup(value.at, codes, 0), kind="code")
