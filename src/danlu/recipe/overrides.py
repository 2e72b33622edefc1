"""Set values of a recipe by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from danlu.errors import Problem, RecipeError
from danlu.recipe.messages import dotted_name
from danlu.recipe.options import Catalogue
from danlu.recipe.short_forms import long_form
from danlu.recipe.tree import DEEPEST, Where, is_text, plain_data
from danlu.recipe.yaml12 import read_yaml

_MOST_OVERRIDES = 1000
_MOST_LETTERS = 100_000  # of all overrides together, as of a recipe
_LONGEST_LABEL = 100  # letters of an override that messages show


def apply_overrides(
    tree: dict[str, Any],
    where: Where,
    overrides: Sequence[str] | Mapping[str, Any],
    catalogue: Catalogue,
) -> tuple[dict[str, Any], dict[tuple[Any, ...], str]]:
    """(tree, where) with each dotted name set to its value; neither argument is changed."""
    tree = plain_data(tree, "recipe")
    problems: list[Problem] = []
    labels: dict[tuple[Any, ...], tuple[int, str]] = {}  # of each path, by the last that set it
    for number, (name, value, label) in enumerate(_pairs(overrides, problems), 1):
        keys = name.split(".")
        path = _set(tree, keys, value, catalogue) if len(keys) <= DEEPEST else None
        if path is None:
            reason = (
                f"{dotted_name(keys[:-1])} holds no such names."
                if len(keys) <= DEEPEST
                else f"it is nested deeper than {DEEPEST} levels."
            )
            problems.append(
                Problem(label, f"{dotted_name(keys[:DEEPEST])} cannot be set: {reason}")
            )
            continue
        labels[path] = (number, label)
    if problems:
        raise RecipeError(problems)
    return tree, _with_labels(where, labels)


def _with_labels(
    where: Where, labels: Mapping[tuple[Any, ...], tuple[int, str]]
) -> dict[tuple[Any, ...], str]:
    """The place of each value: of one that was set its label; what stood inside it is no more."""
    numbered = {path: (0, place) for path, place in where.items()} | dict(labels)

    def replaced(path: tuple[Any, ...], number: int) -> bool:
        outer = (labels.get(path[:length], (0, ""))[0] for length in range(1, len(path)))
        return any(later > number for later in outer)

    return {path: place for path, (number, place) in numbered.items() if not replaced(path, number)}


def _pairs(
    overrides: Sequence[str] | Mapping[str, Any], problems: list[Problem]
) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, what messages call it) of each override."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            yield name, plain_data(value, name), name
        return
    texts = [overrides] if isinstance(overrides, str) else overrides
    if len(texts) > _MOST_OVERRIDES or sum(map(len, texts)) > _MOST_LETTERS:
        raise RecipeError(
            [
                Problem(
                    "",
                    f"there are {len(texts):,} overrides of {sum(map(len, texts)):,} letters; at "
                    f"most {_MOST_OVERRIDES:,} of {_MOST_LETTERS:,} letters together are read.",
                    "write them into the recipe",
                )
            ]
        )
    for text in texts:
        label = f"override {text if len(text) <= _LONGEST_LABEL else text[:_LONGEST_LABEL] + '...'}"
        name, equals, value = text.partition("=")
        if not equals or not all(key.strip() for key in name.split(".")):
            problems.append(
                Problem(
                    label,
                    "an override is name=value.",
                    "example: optimizer.learning_rate=0.01",
                )
            )
            continue
        if is_text(text):
            yield name.strip(), _override_value(value.strip(), label), label
            continue
        hint = "rename the file, or go to its folder; a recipe is text in UTF-8"
        problems.append(Problem(label, "it holds bytes that are not UTF-8.", hint))


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
