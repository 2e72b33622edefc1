"""Compressors as a command line or a list names them: prune:share=0.8,epochs=2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.errors import Problem, RecipeError
from danlu.recipe.options import Catalogue, Part
from danlu.recipe.resolve import Resolver
from danlu.recipe.tree import plain_data, split_values
from danlu.recipe.yaml12 import read_yaml

_EXAMPLE = "example: --with prune:share=0.8,epochs=2"


def parse_compressors(
    given: Sequence[str | Mapping[str, Any] | Part], catalogue: Catalogue
) -> list[Part]:
    """The checked parts, in order. Raises RecipeError with every problem at once.

    Each is a Part, a mapping with a name, or text: NAME, NAME:KEY=VALUE,KEY=VALUE (values as in a
    recipe; a dotted key reaches into a mapping: distil:model.width=8), or the path of a YAML file
    that holds a list of such."""
    trees: list[Any] = []
    where: dict[tuple[Any, ...], str] = {}
    for each in given:
        for tree, said in _trees(each):
            where[("compress", len(trees))] = said
            trees.append(tree)
    checking = Resolver({"compress": trees}, where, catalogue)
    parts = checking.many("compressors", trees, ("compress",))
    if checking.problems:
        raise RecipeError(checking.problems)
    return [part for part in parts if part is not None]


def _trees(each: str | Mapping[str, Any] | Part) -> list[tuple[Any, str]]:
    """(what a recipe would say, what a message calls it) of one that was given."""
    if isinstance(each, Part):
        return [(each.as_dict(), each.name)]
    if isinstance(each, Mapping):
        return [(plain_data(each, "compress"), "compress")]
    if each.lower().endswith((".yaml", ".yml", ".json")) and ":" not in each:
        return _of_file(Path(each))
    name, colon, rest = each.partition(":")
    tree: dict[str, Any] = {"name": name.strip()}
    for pair in split_values(rest) if colon else []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError([Problem(f"--with {each}", f"{pair!r} is no KEY=VALUE.", _EXAMPLE)])
        _set(tree, key.strip().split("."), read_yaml(value.strip(), f"--with {each}")[0])
    return [(tree, f"--with {each}")]


def _of_file(path: Path) -> list[tuple[Any, str]]:
    try:
        tree = read_yaml(path.read_text("utf-8"), path.name)[0]
    except (OSError, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError([Problem(str(path), f"cannot be read: {said}.")]) from None
    if isinstance(tree, dict):
        tree = tree.get("compress", tree)
        tree = tree.get("steps", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, list):
        raise RecipeError(
            [Problem(str(path), "it must hold a list of compressors.", "example: [int8_static]")]
        )
    return [({"name": each} if isinstance(each, str) else each, str(path)) for each in tree]


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            tree[key] = inner = {"name": inner}
        tree = inner
    tree[keys[-1]] = value
