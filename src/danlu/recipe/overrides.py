"""Set values of a recipe by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from danlu.errors import Problem, RecipeError
from danlu.recipe.options import Catalogue
from danlu.recipe.short_forms import long_form
from danlu.recipe.tree import Where, plain_data
from danlu.recipe.yaml12 import read_yaml


def apply_overrides(
    tree: dict[str, Any],
    where: Where,
    overrides: Sequence[str] | Mapping[str, Any],
    catalogue: Catalogue,
) -> tuple[dict[str, Any], dict[tuple[Any, ...], str]]:
    """(tree, where) with each dotted name set to its value; neither argument is changed."""
    tree = plain_data(tree, "recipe")
    places = dict(where)
    problems: list[Problem] = []
    for name, value, label in _pairs(overrides, problems):
        path = _set(tree, name.split("."), value, catalogue)
        if path is None:
            problems.append(
                Problem(
                    label, f"{name} cannot be set: {name.rpartition('.')[0]} holds no such names."
                )
            )
            continue
        for inner in [inner for inner in places if inner[: len(path)] == path]:
            del places[inner]
        places[path] = label
    if problems:
        raise RecipeError(problems)
    return tree, places


def _pairs(
    overrides: Sequence[str] | Mapping[str, Any], problems: list[Problem]
) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, what messages call it) of each override."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            yield name, plain_data(value, name), name
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        name, equals, value = text.partition("=")
        if not equals or not all(key.strip() for key in name.split(".")):
            problems.append(
                Problem(
                    f"override {text!r}",
                    "an override is name=value.",
                    "example: optimizer.learning_rate=0.01",
                )
            )
            continue
        yield name.strip(), _override_value(value.strip(), f"override {text}"), f"override {text}"


def _override_value(text: str, label: str) -> Any:
    """The value of an override. It is read as YAML; where it is not YAML and has no brackets or
    quotes, it is the text itself (#5, *.csv, @home)."""
    if text.startswith("#"):
        return text
    try:
        return read_yaml(text, label)[0]
    except RecipeError:
        if text[:1] in ("[", "{", "'", '"'):
            raise
        return text


def _set(
    tree: dict[str, Any], keys: list[str], value: Any, catalogue: Catalogue
) -> tuple[Any, ...] | None:
    """Set the value at a path of keys (a number is the index of a list) and return that path; None
    where the path does not exist."""
    inside: Any = tree
    path: tuple[Any, ...] = ()
    for key in keys:
        if path and not isinstance(inside[path[-1]], dict | list):
            inside[path[-1]] = long_form(path, inside[path[-1]], catalogue)
        inside = inside[path[-1]] if path else inside
        if isinstance(inside, dict):
            path = (*path, key)
            inside.setdefault(key, None)
        elif isinstance(inside, list) and key.isdigit() and int(key) < len(inside):
            path = (*path, int(key))
        else:
            return None
    inside[path[-1]] = value
    return path
