"""danlu list, show, schema and doctor: what danlu has to offer, and what this machine has."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import AsJson
from danlu.cli.output import print_json, print_result
from danlu.errors import DanluError

verbs = typer.Typer()


@verbs.command("list")
def list_parts(
    shelf: Annotated[
        str | None,
        typer.Argument(metavar="[SHELF]", help="A shelf; without it, all shelves are listed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the parts of a shelf."""
    from danlu import registry

    if shelf is None:
        names = {name: registry.names(name) for name in registry.shelves()}
        if as_json:
            print_json(names)
        else:
            print_result(render.facts({name: ", ".join(parts) for name, parts in names.items()}))
        return
    summaries = {name: registry.summary(shelf, name) for name in registry.names(shelf)}
    print_json(summaries) if as_json else print_result(render.parts(summaries))


@verbs.command()
def show(
    part: Annotated[
        str,
        typer.Argument(metavar="PART", help="A part, as NAME or SHELF/NAME.", show_default=False),
    ],
) -> None:
    """Show what a part does and every option it has."""
    from danlu import registry
    from danlu.errors import did_you_mean

    matches = registry.find(part)
    if not matches:
        names = [name for shelf in registry.shelves() for name in registry.names(shelf)]
        raise DanluError(
            f"there is no part {part!r}.",
            hint=did_you_mean(part.rpartition("/")[2], names) or "danlu list",
        )
    print_result("\n\n".join(registry.describe(shelf, name) for shelf, name in matches))


@verbs.command()
def schema() -> None:
    """Print a JSON Schema of recipes, for completion in editors."""
    print_json(danlu.recipe_schema())


@verbs.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has: cores, memory, instruction sets, GPU, versions."""
    from danlu.system import machine

    values = machine.inspect_machine()
    print_json(values) if as_json else print_result(render.facts(values))
