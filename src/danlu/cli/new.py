"""danlu new: write a recipe for a data file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import danlu
from danlu.cli.output import print_note, print_result
from danlu.errors import DanluError

verbs = typer.Typer()


@verbs.command()
def new(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A data file or folder.", show_default=False)
    ],
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    task: Annotated[
        str | None, typer.Option(help="The task; inferred from the target when left out.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="The recipe file to write; default: in this folder, named after the data."
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a recipe that exists.")] = False,
) -> None:
    """Write a commented recipe for a data file, by looking at it."""
    stem = Path(data.rstrip("/")).name.split(".")[0] or "recipe"
    path = Path(out or f"{stem}.yaml")
    if path.exists() and not force:
        raise DanluError(
            "there is already a file of this name.",
            where=str(path),
            hint="choose another --out, or add --force",
        )
    from danlu.system.atomic_files import replace_file

    text = danlu.draft(data, target, task)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise DanluError(
            f"the recipe cannot be written: {error.strerror or error}.",
            where=str(path),
            hint="choose another --out",
        ) from None
    print_result(path)
    print_note(f"Read it through, then: danlu train {shlex.quote(str(path))}")
