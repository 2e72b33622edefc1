"""danlu compare: compare recipes over learning rates and seeds."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import AsJson, Quiet, with_allow_code, with_allow_remote
from danlu.cli.output import print_json, print_note, print_result
from danlu.errors import DanluError

verbs = typer.Typer()


@verbs.command()
@with_allow_remote
@with_allow_code
def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE... [KEY=A,B,...] [KEY=VALUE ...]",
            help="Recipes, and the options to compare: optimizer=sgd,adam,muon;"
            " KEY=VALUE changes all of them.",
            show_default=False,
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="The comparison's folder; default runs/compare-<recipe name>."
        ),
    ] = None,
    rates: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="Learning rates tried for each contestant; 1: each keeps its own rate.",
        ),
    ] = 7,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Trainings of each contestant, one per seed.")
    ] = 5,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The validation score that is compared; default: the one that selects the best"
            " checkpoint."
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="The score up to which steps and seconds are counted; default: what the weakest"
            " contestant reaches."
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals around means."),
    ] = 0.95,
    on: Annotated[
        str, typer.Option(help="auto, vectorised (many trainings as one program) or one_by_one.")
    ] = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train contestants alike, each at its own learning rate, over several seeds. The same command
    resumes after a kill."""
    from danlu.comparison import split_words

    if on not in ("auto", "vectorised", "one_by_one"):
        raise DanluError(f"--on must be auto, vectorised or one_by_one, and is {on!r}.")
    recipes, among, overrides = split_words(words)
    comparison = danlu.compare(
        recipes,
        among,
        overrides,
        run=run,
        rates=rates,
        seeds=seeds,
        metric=metric,
        target=target,
        confidence=confidence,
        on=on,
        say=_ignore if quiet else print_note,
    )
    if as_json:
        print_json(comparison.as_dict())
        return
    heads, rows = comparison.table()
    print_result(render.table([heads, *rows]))
    if not quiet:
        print_note(f"\n{comparison.sentence()}\nCurves: {comparison.folder / 'curves.svg'}")


def _ignore(text: str) -> None:
    """Print nothing."""
