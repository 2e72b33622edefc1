"""danlu report: write the report of a study."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import AsJson, with_allow_remote
from danlu.cli.output import print_json, print_result

verbs = typer.Typer()


@verbs.command()
@with_allow_remote
def report(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="The folder of a study.", show_default=False)
    ],
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The database of its trials, where that needs a password."
        ),
    ] = None,
    plots: Annotated[
        bool | None,
        typer.Option(
            "--plots/--no-plots", help="Draw PNGs too; default: where matplotlib is installed."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study: one HTML page, tables as CSV and Parquet, plots. The study may
    be running."""
    paths = [str(path) for path in danlu.report(study, storage=storage, plots=plots)]
    print_json(paths) if as_json else print_result(render.lines(paths))
