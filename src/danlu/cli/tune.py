"""danlu tune: search the options of a recipe."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import (
    AsJson,
    Overrides,
    Quiet,
    RecipeFile,
    with_allow_code,
    with_allow_remote,
)
from danlu.cli.output import print_json, print_note, print_result, progress_output
from danlu.errors import DanluError

verbs = typer.Typer()


@verbs.command()
@with_allow_remote
@with_allow_code
def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The study's folder; default studies/<recipe name>."),
    ] = None,
    at_width: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="WIDTH",
            help="Search on a copy of the recipe whose model has this width, under muP.",
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="With --at-width: write wide.yaml, the recipe at its own width with the best"
            " values.",
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search the options that the recipe's section tune names. The same command resumes a study
    after Ctrl-C or a kill."""
    if transfer and at_width is None:
        raise DanluError("--transfer needs the width to search at.", hint="add --at-width 128")
    # The name of the folder of a search at a width is known later; it is below studies as well.
    folder = study or ("studies" if at_width is not None else None)
    checked = danlu.read_recipe(recipe, overrides or (), study=folder)
    output = progress_output(as_json, quiet)
    if at_width is None:
        result = danlu.tune(checked, study, output=output, plots=None)
        values, best_recipe = result.as_dict() if as_json else None, result.recipe
    else:
        moved = danlu.tune_at_width(
            checked, at_width, study, transfer=transfer, output=output, say=print_note
        )
        result = moved.study
        values = moved.as_dict() if as_json else None
        best_recipe = moved.recipe or result.recipe
    if values is not None:
        print_json(values)
        return
    print_result(render.trial_counts(result.trials))
    if result.best is None:
        raise DanluError(
            "no trial was completed.",
            where=str(result.folder),
            hint="read the causes above, or those in danlu tune ... --json",
        )
    objectives = {
        metric: score for (metric, _), score in zip(result.objectives, result.best.scores or ())
    }
    print_result(f"best: trial {result.best.number}")
    print_result(render.scores({**objectives, **result.best.values}))
    if not quiet:
        print_note(
            f"\nReport: {result.folder / 'report.html'}\n"
            f"Next:\n  danlu train {shlex.quote(str(best_recipe))}"
        )
