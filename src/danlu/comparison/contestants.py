"""The contestants of a comparison: each recipe with each combination of the values compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import registry
from danlu.errors import DanluError
from danlu.recipe import Recipe, split_values
from danlu.reporting.study_data import short, text_of

MAX_CONTESTANTS = 64
LEARNING_RATE = "optimizer.learning_rate"
Among = Mapping[str, Sequence[Any]]
RecipeSource = Recipe | str | Path | Mapping[str, Any]
Overrides = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Contestant:
    """One recipe of a comparison. `searched`: whether its learning rate is searched; False where
    the comparison sets it."""

    name: str
    recipe: Recipe
    searched: bool


def contestants(
    sources: Sequence[RecipeSource], among: Among, overrides: Overrides = ()
) -> list[Contestant]:
    """Contestants with different names, in the order of the arguments.

    Raises DanluError for fewer than two or more than MAX_CONTESTANTS, RecipeError for a wrong
    recipe.
    """
    for name, values in among.items():
        if len(values) < 2:
            raise DanluError(
                f"{name} is to be compared among {len(values)} value.",
                hint=f"give several: {name}=A,B",
            )
    without_search = [_without_search(source, overrides) for source in sources]
    by_name: dict[str, Contestant] = {}
    for recipe, values in itertools.product(without_search, itertools.product(*among.values())):
        name = _name(recipe, values, len(without_search) > 1)
        if name in by_name:
            raise DanluError(
                f"there are two contestants {name!r}.",
                hint="name each value, and each recipe, once",
            )
        changed = recipe
        for key, value in zip(among, values):
            changed = recipes.with_changes(
                changed, registry, [f"{key}={value}"] if isinstance(value, str) else {key: value}
            )
        by_name[name] = Contestant(name, changed, LEARNING_RATE not in among)
    if len(by_name) < 2:
        raise DanluError(
            "there is nothing to compare.",
            hint="give several values (optimizer=sgd,adam) or several recipes",
        )
    if len(by_name) > MAX_CONTESTANTS:
        raise DanluError(
            f"{len(by_name)} contestants are too many; there may be {MAX_CONTESTANTS}.",
            hint="ask in several comparisons",
        )
    return list(by_name.values())


def _name(recipe: Recipe, values: Sequence[Any], several: bool) -> str:
    words = [text_of(value) for value in values]
    return short(" ".join([recipe.name, *words] if several or not words else words), 60)


def _without_search(source: RecipeSource, overrides: Overrides) -> Recipe:
    """The recipe of a source, without its section tune: that may name options which a contestant
    does not have."""
    recipe = source if isinstance(source, Recipe) else recipes.read(source, registry, overrides)
    if isinstance(source, Recipe) and overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    return replace(
        recipe,
        raw={key: value for key, value in recipe.raw.items() if key != "tune"},
        tune=None,
        space=(),
    )


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """(recipes, {dotted name: values}, overrides) from the words of a command: NAME=A,B is
    compared, NAME=A is an override, every other word is a recipe.

    Commas inside brackets and quotes do not split a value.

    >>> split_words(["iris.yaml", "optimizer=sgd,adam", "train.epochs=5"])
    (['iris.yaml'], {'optimizer': ['sgd', 'adam']}, ['train.epochs=5'])
    """
    sources: list[str] = []
    among: dict[str, list[str]] = {}
    overrides: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or Path(word).is_file():
            sources.append(word)
            continue
        values = split_values(text)
        if len(values) == 1:
            overrides.append(word)
        elif name in among:
            raise DanluError(f"{name} is asked twice.", hint=f"one list: {name}=A,B,C")
        else:
            among[name] = values
    return sources, among, overrides
