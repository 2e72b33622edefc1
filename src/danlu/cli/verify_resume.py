"""danlu verify-resume: prove that a killed run resumes to the same bytes."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli.options import AsJson, Overrides, RecipeFile, with_allow_code, with_allow_remote
from danlu.cli.output import print_json, print_note, print_result

verbs = typer.Typer()


@verbs.command()
@with_allow_remote
@with_allow_code
def verify_resume(
    recipe: RecipeFile,
    overrides: Overrides = None,
    kills: Annotated[
        int, typer.Option(min=1, max=1000, help="How many times the run is killed.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the moments at which it is killed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Prove on your own recipe that a killed run ends in the same bytes as one never killed."""
    verdict = danlu.verify_resume(recipe, overrides or (), kills=kills, seed=seed, say=print_note)
    print_json(verdict.as_dict()) if as_json else print_result(verdict.sentence())
    if not verdict.equal:
        raise typer.Exit(1)
