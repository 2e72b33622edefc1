"""Read a recipe from a file or a dict, apply overrides, and check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.errors import Problem, RecipeError, nearest
from danlu.recipe.check import check_recipe
from danlu.recipe.check_search_space import in_order
from danlu.recipe.messages import NEW_RECIPE
from danlu.recipe.options import Catalogue
from danlu.recipe.overrides import apply_overrides
from danlu.recipe.permissions import PERMIT, file_elsewhere
from danlu.recipe.sections import Recipe
from danlu.recipe.tree import plain_data
from danlu.recipe.yaml12 import read_page, read_yaml


def read(
    source: str | Path | Mapping[str, Any],
    catalogue: Catalogue,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    study: str | Path | None = None,
) -> Recipe:
    """The checked recipe of a file or dict, with `overrides` ("optimizer.learning_rate=0.1", or a
    dict of dotted names) applied.

    An SQLite database of a search lies in the folder `study` (default studies/<name>), unless the
    caller permits another place. Raises RecipeError with every problem at once; reads no data.
    """
    if isinstance(source, Mapping):
        tree, where, path = plain_data(source, "recipe"), {(): "recipe"}, ""
    else:
        path = str(source)
        tree, where = read_yaml(_read_text(Path(source)), Path(source).name)
    if not isinstance(tree, dict):
        raise RecipeError(
            [
                Problem(
                    where.get((), path),
                    "a recipe is a mapping with the keys task, data and model.",
                    NEW_RECIPE,
                )
            ]
        )
    tree, where = apply_overrides(tree, where, overrides, catalogue)
    recipe = check_recipe(tree, where, catalogue, path)
    tune = recipe.tune
    if tune is None or tune.storage is None or catalogue.remote_is_allowed():
        return recipe
    elsewhere = file_elsewhere(tune, Path(study or Path("studies") / recipe.name))
    if elsewhere:
        line = where.get(("tune", "storage"), path or "recipe")
        raise RecipeError([Problem(line, elsewhere, PERMIT)])
    return recipe


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise RecipeError(
                [Problem(str(path), "this is a folder; a recipe is a YAML file.", NEW_RECIPE)]
            )
        return read_page(path)
    except UnicodeDecodeError as error:
        raise RecipeError(
            [Problem(str(path), f"byte {error.start} is not UTF-8.", "save the recipe as UTF-8")]
        ) from None
    except FileNotFoundError:
        beside = path.parent if path.parent.is_dir() else Path()
        near = nearest(path.name, [candidate.name for candidate in beside.glob("*.y*ml")])
        hint = f"did you mean {path.parent / near[0]}?" if near else NEW_RECIPE
        raise RecipeError([Problem(str(path), "there is no such recipe.", hint)]) from None
    except (OSError, ValueError) as error:
        raise RecipeError(
            [
                Problem(
                    str(path),
                    f"cannot be read: {(isinstance(error, OSError) and error.strerror) or error}.",
                )
            ]
        ) from None


def with_changes(
    recipe: Recipe, catalogue: Catalogue, changes: Sequence[str] | Mapping[str, Any]
) -> Recipe:
    """The recipe with new values of some dotted names, checked again. Raises RecipeError."""
    tree, where = apply_overrides(
        dict(recipe.raw), {(): recipe.path or "recipe"}, changes, catalogue
    )
    return check_recipe(tree, where, catalogue, recipe.path)


def trial_recipe(recipe: Recipe, values: Mapping[str, Any], catalogue: Catalogue) -> Recipe:
    """The recipe with `values` (by dotted name), checked again, without its section tune. Raises
    RecipeError where they do not fit."""
    return with_changes(recipe, catalogue, {**in_order(values), "tune": None})
