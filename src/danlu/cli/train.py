"""danlu train: train a recipe, cross-validate it, or look for its learning rate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import danlu
from danlu.cli import render
from danlu.cli.compress import print_compression
from danlu.cli.options import (
    AsJson,
    Overrides,
    Quiet,
    RecipeFile,
    with_allow_code,
    with_allow_remote,
    with_key,
)
from danlu.cli.output import print_json, print_note, print_result, progress_output

if TYPE_CHECKING:
    from danlu import Artifact, Recipe
    from danlu.compression.compress import CompressionReport
    from danlu.training.loop import Output

verbs = typer.Typer()


@verbs.command()
@with_key
@with_allow_remote
@with_allow_code
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The run folder; default runs/<recipe name>."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="k-fold cross-validation with k folds.")
    ] = None,
    find_learning_rate: Annotated[
        bool, typer.Option("--find-learning-rate", help="Run the learning-rate range test instead.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe. The same command resumes a run that was stopped or killed, and prints the
    scores of a finished one."""
    checked = danlu.read_recipe(recipe, overrides or ())
    if find_learning_rate:
        result = danlu.find_learning_rate(checked)
        print_json(result.as_dict()) if as_json else print_result(render.learning_rates(result))
        return
    folder = Path(run) if run else Path("runs") / checked.name
    output = progress_output(as_json, quiet)
    count = folds or checked.train.folds
    if count:
        _cross_validate(checked, count, folder, output, as_json)
        return
    was_finished = (folder / "artifact" / "artifact.json").is_file()
    compressions: list[CompressionReport] = []
    artifact = danlu.train(checked, folder, output=output, tell=compressions.append)
    if as_json:
        _print_as_json(folder, artifact, was_finished, compressions)
        return
    for report in compressions:
        print_compression(report, quiet)
        print_result()
    if was_finished:
        print_note(
            "This run has finished already; these are its scores. (To train again: --run ANOTHER,"
            f" or remove {folder}.)"
        )
    _print_scores(artifact)
    if not quiet:
        path = shlex.quote(str(folder))
        print_note(
            f"\nArtifact: {artifact.path}\nNext:\n  danlu evaluate {path}\n"
            f"  danlu {artifact.task.usage.format(path)}\n  tensorboard --logdir {path}"
        )


def _print_as_json(
    folder: Path,
    artifact: Artifact,
    was_finished: bool,
    compressions: list[CompressionReport],
) -> None:
    values = {
        "run": str(folder),
        "artifact": str(artifact.path),
        "finished_before": was_finished,
        "scores": artifact.scores,
    }
    if compressions:
        values["compressed"] = compressions[0].as_dict()
    print_json(values)


def _print_scores(artifact: Artifact) -> None:
    """The scores of the test split (else of the validation split), and those of the baseline."""
    split = "test" if "test" in artifact.scores else "validation"
    if split not in artifact.scores:
        print_result("there is no validation or test split, so there is no score.")
        return
    print_result(f"{split} scores ({artifact.scores[split]['rows']:,} rows)")
    print_result(render.scores(artifact.scores[split], artifact.task.classes))
    baseline = {
        name: value
        for name, value in artifact.scores.get("baseline", {}).items()
        if name != "split"
    }
    if baseline:
        print_result(artifact.task.baseline_description)
        print_result(render.scores(baseline))


def _cross_validate(
    recipe: Recipe, count: int, folder: Path, output: Output, as_json: bool
) -> None:
    result = danlu.cross_validate(recipe, count, folder, output=output)
    if as_json:
        print_json({"run": str(folder), **result})
    else:
        print_result(render.folds(count, result["mean"], result["std"]))
