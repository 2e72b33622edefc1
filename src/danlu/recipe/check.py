"""Check a whole recipe: make a Recipe with every default filled in, or report every problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.errors import Problem, RecipeError
from danlu.recipe.check_search_space import check_search_space, trial_checker
from danlu.recipe.contradictions import note_contradictions
from danlu.recipe.messages import NEW_RECIPE, format_value, is_slip
from danlu.recipe.options import Catalogue, Part
from danlu.recipe.permissions import note_addresses
from danlu.recipe.resolve import Resolver
from danlu.recipe.sections import KEYS, LISTS, NAME, PARTS, SECTIONS, Recipe
from danlu.recipe.short_forms import long_section
from danlu.recipe.tree import Where, mapping_or_empty


def check_recipe(
    tree: dict[str, Any],
    where: Where,
    catalogue: Catalogue,
    path: str = "",
    *,
    explain: bool = True,
) -> Recipe:
    """The Recipe of a tree, every default filled in.

    `where` holds the "file:line" of each value, `path` the file that the recipe came from;
    `explain` says whether hints are looked for.
    Raises RecipeError with all problems at once."""
    # a lock file adds the key "resolved"
    tree = {key: value for key, value in tree.items() if value is not None and key != "resolved"}
    checking = Resolver(tree, where, catalogue, explain)
    for key in tree:
        if key not in KEYS:
            checking.unknown(key, KEYS, (key,), "a recipe", "keys")
    name = _name(checking, path)
    parts = _parts(checking)
    if _has_no_validation(tree):
        checking.filled.pop("regularization.early_stopping", None)
    for key in ("task", "data", "model"):
        if (
            key not in tree
            and key not in checking.filled
            and not any(is_slip(other, key) for other in tree if other not in KEYS)
        ):
            checking.add((), f"{key} is missing: a recipe needs task, data and model.", NEW_RECIPE)
    sections = {
        key: checking.options(
            config,
            _with_defaults(long_section(key, tree.get(key, {})), key, checking.filled),
            (key,),
            key,
        )
        for key, config in SECTIONS.items()
        if key in tree or key not in ("data", "tune", "compress")
    }
    note_contradictions(checking, parts, sections)
    note_addresses(checking, sections)
    if "tune" in sections:
        space = (
            check_search_space(
                checking, sections["tune"], parts, trial_checker(tree, catalogue, check_recipe)
            )
            if _sound(checking, tree)
            else ()
        )
        sections["space"] = space
    if checking.problems:
        raise RecipeError(_in_file_order(checking.problems))
    dropout = sections["regularization"].dropout
    if dropout is not None:
        parts["model"] = Part(
            parts["model"].name, parts["model"].options.model_copy(update={"dropout": dropout})
        )
    lists = {key: tuple(parts.pop(key)) for key in LISTS}
    return Recipe(name=name, **parts, **lists, **sections, raw=tree, path=path)


def _has_no_validation(tree: Mapping[str, Any]) -> bool:
    """Whether the recipe says that no row is for validation: a model's recommendation to stop early
    then has nothing to go by."""
    split = mapping_or_empty(mapping_or_empty(tree.get("data")).get("split"))
    return split.get("validation") == 0


def _sound(checking: Resolver, tree: dict[str, Any]) -> bool:
    """Whether the section tune holds a space that is a mapping."""
    return (
        isinstance(tree["tune"], dict)
        and isinstance(tree["tune"].get("space"), dict)
        and ("tune", "space") not in checking.wrong
    )


def _name(checking: Resolver, path: str) -> str:
    """The name of the recipe: its key name, else the name of its file."""
    name = checking.tree.get("name")
    if name is not None:
        if not isinstance(name, str) or not re.fullmatch(NAME, name) or not name.strip(". "):
            hint = "put it in quotes" if not isinstance(name, str) else "it names the run's folder"
            checking.add(
                ("name",),
                "name must be up to 100 letters, digits, spaces, '-', '_' or '.', and is "
                f"{format_value(name)}.",
                hint,
            )
        return str(name)
    stem = re.sub(r"(\.lock)?\.(ya?ml|json)$", "", Path(path).name) if path else ""
    return re.sub(r"[^\w.\- ]", "_", stem)[:100] if stem.strip(". ") else "recipe"


def _parts(checking: Resolver) -> dict[str, Any]:
    """The parts by key. What task, model and optimizer recommend, in this order, is added to the
    defaults."""
    tree, catalogue, filled = checking.tree, checking.catalogue, checking.filled
    parts: dict[str, Any] = {}
    for key in ("task", "model", "optimizer", "loss", "schedule"):
        value, default = tree.get(key, filled.get(key)), filled.get(key)
        part = None if value is None else checking.part(PARTS[key], value, (key,), default)
        parts[key] = part
        if part is not None and key in ("task", "model", "optimizer"):
            _recommend(filled, catalogue.defaults(PARTS[key], part.name))
            _recommend(filled, catalogue.recommended(PARTS[key], part))
    if (
        parts["optimizer"] is not None
        and catalogue.optimizer_facts(parts["optimizer"].name).full_batch
    ):
        filled["train.batch_size"] = "all"
    for key in LISTS:
        parts[key] = checking.many(PARTS[key], tree.get(key, filled[key]), (key,))
    return parts


_EITHER = {"train.epochs": "train.steps", "train.steps": "train.epochs"}


def _recommend(filled: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add a part's recommendations: later ones replace earlier ones, and epochs replace steps."""
    for key, value in more.items():
        filled.pop(_EITHER.get(key, ""), None)
        filled[key] = value


def _with_defaults(values: Any, section: str, filled: Mapping[str, Any]) -> Any:
    """A section with the recommended values of options that the user does not give."""
    if not isinstance(values, dict):
        return values
    result = dict(values)
    for dotted, value in filled.items():
        head, _, option = dotted.partition(".")
        if head != section:
            continue
        other = _EITHER.get(dotted, "").partition(".")[2]
        unsaid = values.get(option) is None if option == "split" or other else option not in values
        if option == "least_steps" and (
            values.get("epochs") is not None or values.get("steps") is not None
        ):
            continue  # the user says how long training is
        if unsaid and values.get(other) is None:
            result[option] = value
    return result


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    def line(problem: Problem) -> int:
        tail = problem.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=line)
