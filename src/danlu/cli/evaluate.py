"""danlu evaluate: score an artifact."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.options import ArtifactFolder, AsJson, with_allow_code, with_key
from danlu.cli.output import print_json, print_result
from danlu.errors import DanluError

verbs = typer.Typer()


@verbs.command()
@with_key
@with_allow_code
def evaluate(
    artifact: ArtifactFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="A data file with the target; default: the run's own test split."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which split of its own data: train, validation or test.")
    ] = "test",
    as_json: AsJson = False,
) -> None:
    """Score an artifact on its own test split, or on a data file."""
    from danlu.training.evaluation import as_plain_scores

    if split not in ("train", "validation", "test"):
        raise DanluError(f"--split must be train, validation or test, and is {split!r}.")
    model = danlu.load(artifact)
    scores = danlu.evaluate(model, data, split)
    values = as_plain_scores(scores)
    if as_json:
        print_json({"split": scores.split, "rows": scores.rows, "scores": values})
    else:
        print_result(f"{data or scores.split + ' split'} ({scores.rows:,} rows)")
        print_result(render.scores(values, model.task.classes))
