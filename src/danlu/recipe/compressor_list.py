"""Read compressors and their options from a command line: prune:share=0.8,epochs=2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.errors import Problem, RecipeError
from danlu.recipe.options import Catalogue, Part
from danlu.recipe.resolve import Resolver
from danlu.recipe.tree import plain_data, split_values
from danlu.recipe.yaml12 import read_page, read_yaml

_EXAMPLE = "example: --with prune:share=0.8,epochs=2"


def parse_compressors(
    entries: Sequence[str | Mapping[str, Any] | Part], catalogue: Catalogue
) -> list[Part]:
    """The checked compressors, in order. Raises RecipeError with every problem at once.

    An entry is a Part, a mapping with a name, or a text: NAME, NAME:KEY=VALUE,KEY=VALUE (values as
    in a recipe; a dotted key sets an option of a mapping: distil:model.width=8), or the path of a
    YAML file that holds a list of compressors."""
    trees: list[Any] = []
    where: dict[tuple[Any, ...], str] = {}
    for entry in entries:
        for tree, label in _trees(entry):
            where[("compress", len(trees))] = label
            trees.append(tree)
    checking = Resolver({"compress": trees}, where, catalogue)
    parts = checking.many("compressors", trees, ("compress",))
    if checking.problems:
        raise RecipeError(checking.problems)
    return [part for part in parts if part is not None]


def _trees(entry: str | Mapping[str, Any] | Part) -> list[tuple[Any, str]]:
    """(the value as in a recipe, what messages call it) of each compressor of an entry."""
    if isinstance(entry, Part):
        return [(entry.as_dict(), entry.name)]
    if isinstance(entry, Mapping):
        return [(plain_data(entry, "compress"), "compress")]
    if entry.lower().endswith((".yaml", ".yml", ".json")) and ":" not in entry:
        return _of_file(Path(entry))
    name, colon, rest = entry.partition(":")
    tree: dict[str, Any] = {"name": name.strip()}
    for pair in split_values(rest) if colon else []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError([Problem(f"--with {entry}", f"{pair!r} is not KEY=VALUE.", _EXAMPLE)])
        _set(tree, key.strip().split("."), read_yaml(value.strip(), f"--with {entry}")[0])
    return [(tree, f"--with {entry}")]


def _of_file(path: Path) -> list[tuple[Any, str]]:
    try:
        tree = read_yaml(read_page(path), path.name)[0]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError([Problem(str(path), f"cannot be read: {reason}.")]) from None
    if isinstance(tree, dict):
        tree = tree.get("compress", tree)
        tree = tree.get("steps", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, list):
        raise RecipeError(
            [Problem(str(path), "it must hold a list of compressors.", "example: [int8_static]")]
        )
    return [({"name": entry} if isinstance(entry, str) else entry, str(path)) for entry in tree]


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            tree[key] = inner = {"name": inner}
        tree = inner
    tree[keys[-1]] = value
