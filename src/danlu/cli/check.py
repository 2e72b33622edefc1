"""danlu check: check a recipe."""

from __future__ import annotations

import typer

import danlu
from danlu.cli.options import AsJson, Overrides, RecipeFile, with_allow_remote
from danlu.cli.output import print_json, print_note, print_result

verbs = typer.Typer()


@verbs.command()
@with_allow_remote
def check(recipe: RecipeFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a recipe without reading any data; prints it with every default."""
    from danlu.recipe import as_plain, write_yaml

    checked = danlu.read_recipe(recipe, overrides or ())
    values = checked.as_dict()
    for key, section in (("tune", checked.tune), ("compress", checked.compress)):
        if section is not None:
            values[key] = as_plain(section)
    if as_json:
        print_json(values)
    else:
        print_result(write_yaml(values), end="")
        print_note(f"{recipe} is valid.")
