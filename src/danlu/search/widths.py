"""A recipe at another width: the same network with one number changed."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from danlu import registry
from danlu.errors import RecipeError, RunError
from danlu.recipe import Recipe, with_changes


def width_of(recipe: Recipe) -> int:
    """The width of the recipe's model. Raises RunError where one number does not determine it."""
    find_width = registry.model_facts(recipe.model.name).width_of
    width = find_width(recipe.model.options) if find_width is not None else 0
    if not width:
        able = [
            name
            for name in registry.names("models")
            if registry.model_facts(name).width_of is not None
        ]
        raise RunError(
            f"model {recipe.model.name} as it stands has no width that one number gives.",
            where=recipe.path,
            hint=f"models with a width: {', '.join(able)}",
        )
    return int(width)


def at_width(recipe: Recipe, width: int) -> Recipe:
    """The recipe with its model at another width. Raises RunError for a width that the model cannot
    have."""
    if width == width_of(recipe):
        return recipe
    facts, options = registry.model_facts(recipe.model.name), recipe.model.options
    assert facts.at_width is not None  # it comes with width_of
    try:
        narrow = facts.at_width(options, width)
        return with_changes(recipe, registry, changed_options(options, narrow))
    except (ValidationError, RecipeError) as error:
        reason = (
            error.errors()[0]["msg"].removeprefix("Value error, ")
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise RunError(
            f"the model cannot be {width:,} wide: {reason}.",
            where=recipe.path,
            hint="choose another width",
        ) from None


def changed_options(options: Any, new_options: Any) -> dict[str, Any]:
    """The options of a model that differ in `new_options`, as changes to a recipe."""
    now, then = options.model_dump(), new_options.model_dump()
    return {f"model.{name}": value for name, value in then.items() if value != now[name]}
