"""danlu export and danlu verify: write an artifact for another runtime, and check that file."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli.options import ArtifactFolder, AsJson, with_allow_code, with_key
from danlu.cli.output import print_json, print_note, print_result

verbs = typer.Typer()


@verbs.command()
@with_key
@with_allow_code
def export(
    artifact: ArtifactFolder,
    to: Annotated[str, typer.Option(help="The exporter: onnx, ... (danlu list exporters).")],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]", help="Options of the exporter.", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Where the export is written; default: beside the artifact."
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A data file to compare on; default: the run's own test split.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest difference allowed; default 1e-4.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an artifact in the format of another runtime, after comparing it with the artifact on
    held-out rows."""
    from danlu.exporting.card import parity_in_words

    result = danlu.export(artifact, to, out, rows, tolerance=tolerance, options=options or ())
    proof = result.manifest["proof"]
    if as_json:
        print_json({"folder": str(result.path), "files": result.manifest["files"], "proof": proof})
    else:
        print_result(result.path)
        print_note(parity_in_words(proof))


@verbs.command()
@with_key
@with_allow_code
def verify(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="EXPORT", help="The folder that danlu export wrote.", show_default=False
        ),
    ],
    against: Annotated[
        str,
        typer.Option(
            metavar="ARTIFACT", help="The artifact it was made from, or the folder of its run."
        ),
    ],
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="A data file to compare on; default: the run's own test split."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference allowed; default: as when it was exported."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare an export with the artifact it was made from, once more."""
    from danlu.exporting.card import parity_in_words

    proof = danlu.verify(folder, against, rows, tolerance=tolerance).as_dict()
    print_json(proof) if as_json else print_result(parity_in_words(proof))
