"""danlu predict: answer the rows of a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import ArtifactFolder, AsJson, with_allow_code, with_key
from danlu.cli.output import json_text, print_note, print_result
from danlu.system.standard_streams import read_stdin, require_stdout

verbs = typer.Typer()


@verbs.command()
@with_key
@with_allow_code
def predict(
    artifact: ArtifactFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A data file or folder; - reads JSON lines from stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the answers to a .csv, .jsonl or .parquet file."),
    ] = None,
    keep_formulas: Annotated[
        bool,
        typer.Option(
            "--keep-formulas",
            help="In a .csv file, write texts such as =1+1 as they are. Spreadsheets run them; "
            "without this option they get an apostrophe in front.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer every row of a data file."""
    from danlu.cli.answer_files import read_lines, write_answers

    if not out:
        require_stdout("write the answers to a file: --out FILE")
    model = danlu.load(artifact)
    answers = model.predict(read_lines(read_stdin()) if data == "-" else data)
    if out:
        write_answers(Path(out), answers, keep_formulas=keep_formulas)
        print_note(f"{len(answers):,} answers written to {out}")
        return
    for answer in answers:
        print_result(json_text(answer) if as_json else render.answer(answer))
