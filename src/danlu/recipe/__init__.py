"""Recipes: read YAML 1.2, JSON or a dict, apply overrides, check, write. Imports no torch.

A whole recipe is checked before any data is read, and every problem is reported at once. The
options of a part are declared in the part's own file; this package reads them through a `Catalogue`
(danlu.registry is one), so it knows no part by name.

The way of a recipe: `yaml12` makes a tree of a text, `overrides` change the tree, `resolve` finds
the parts and options that it means, `contradictions` looks at them together, `check` makes a
Recipe of them. Begin with `load`."""

from __future__ import annotations

from typing import Any

from danlu.recipe.check import check_recipe
from danlu.recipe.compressor_list import parse_compressors
from danlu.recipe.database_address import DatabaseAddress, parse_address
from danlu.recipe.describe import describe_options
from danlu.recipe.diff import differences
from danlu.recipe.load import read, trial_recipe, with_changes
from danlu.recipe.options import (
    Catalogue,
    OnShelf,
    Options,
    Part,
    ScheduleOptions,
    as_plain,
    on_shelf,
)
from danlu.recipe.overrides import apply_overrides
from danlu.recipe.search_space import Dimension, Space, contains_point, same_value
from danlu.recipe.sections import (
    DEFAULTS,
    KEYS,
    LISTS,
    PARTS,
    SECTIONS,
    ColumnOptions,
    Data,
    FineTune,
    Objective,
    Recipe,
    Regularization,
    Train,
    Tune,
)
from danlu.recipe.tree import is_text, plain_data, split_values
from danlu.recipe.yaml12 import read_yaml
from danlu.recipe.yaml_writer import write_yaml

__all__ = [
    "DEFAULTS",
    "KEYS",
    "LISTS",
    "PARTS",
    "SECTIONS",
    "Catalogue",
    "ColumnOptions",
    "Data",
    "DatabaseAddress",
    "Dimension",
    "FineTune",
    "Objective",
    "OnShelf",
    "Options",
    "Part",
    "Recipe",
    "Regularization",
    "ScheduleOptions",
    "Space",
    "Train",
    "Tune",
    "apply_overrides",
    "as_plain",
    "check_recipe",
    "contains_point",
    "describe_options",
    "differences",
    "is_text",
    "on_shelf",
    "parse_address",
    "parse_compressors",
    "plain_data",
    "read",
    "read_yaml",
    "same_value",
    "schema",
    "split_values",
    "trial_recipe",
    "with_changes",
    "write_yaml",
]


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of recipes, made from the parts, for completion and checking in
    editors."""
    from danlu.recipe import json_schema  # one verb needs it, and every start would wait for it

    return json_schema.schema(catalogue)
