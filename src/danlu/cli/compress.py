"""danlu compress: make an artifact smaller or faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import (
    ArtifactFolder,
    AsJson,
    Quiet,
    with_allow_code,
    with_allow_remote,
    with_key,
)
from danlu.cli.output import print_json, print_note, print_result, progress_output

if TYPE_CHECKING:
    from danlu.compression.compress import CompressionReport

verbs = typer.Typer()


@verbs.command()
@with_key
@with_allow_remote
@with_allow_code
def compress(
    artifact: ArtifactFolder,
    steps: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="NAME[:KEY=VALUE,...]",
            help="A compressor and its options, as prune:share=0.8,epochs=2; may be given several"
            " times, in order. Or a YAML file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the result is written; default: beside the artifact, NAME-compressed.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="The most that the deciding score may lose, in its own units; if it loses more,"
            " nothing is written.",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="The score that decides; default: the first metric of the recipe."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make an artifact smaller or faster, and measure on its test split what that costs."""
    output = progress_output(as_json, quiet)
    report = danlu.compress(artifact, steps, out, max_drop=max_drop, score=score, output=output)
    if as_json:
        print_json(report.as_dict())
        return
    print_compression(report, quiet)


def print_compression(report: CompressionReport, quiet: bool) -> None:
    """Print what a compression changed: sizes, speed and scores, before and after."""
    print_result(render.compression(report))
    if not quiet:
        for note in report.notes:
            print_note(note)
        print_note(f"\nArtifact: {report.artifact.path}")
