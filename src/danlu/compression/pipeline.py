"""A whole recipe: training, then its section compress.

The run folder gets artifact/ as trained and artifact-compressed/.

The section does not affect the training: a finished run is compressed without being trained again,
also by other steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.prediction import Artifact
from danlu.compression.compress import CompressionReport, compress, existing_result
from danlu.parts.watchers._base import Watcher
from danlu.recipe import Recipe
from danlu.training import loop

COMPRESSED = "artifact-compressed"


def train(
    recipe: Recipe | str | Path | Mapping[str, object],
    run: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    output: loop.Output = "quiet",
    fold: tuple[int, int] | None = None,
    beside: Watcher | None = None,
    tell: Callable[[CompressionReport], None] = lambda result: None,
) -> Artifact:
    """Train a recipe (a Recipe, a file, or a dict) in the run folder `run` (default runs/<recipe
    name>); returns the artifact.

    The same call resumes a run that was interrupted, and returns the artifact of a finished run at
    once. Where the recipe has a section compress, the compressed artifact is returned, from
    artifact-compressed/ beside artifact/; `tell` is called with the report where it was newly made.
    `beside` is a watcher that the recipe does not name; what it raises ends the training. Raises
    DanluError: the recipe or the data is wrong, the folder belongs to another run, training stopped
    itself, the compressed model's score drops by more than compress.max_drop (artifact/ stays), or
    a signal interrupted it (the state is then saved).

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> sorted(artifact.scores)
    ['baseline', 'test', 'validation']
    """
    if not isinstance(recipe, Recipe):
        recipe = recipes.read(recipe, registry, overrides)
    elif overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    trained = loop.train(recipe, run, output=output, fold=fold, beside=beside)
    options = recipe.compress
    if options is None or trained.path is None:
        return trained
    path = trained.path.with_name(COMPRESSED)
    compressed = existing_result(path, trained, options.steps)
    if compressed is None:
        result = compress(
            trained,
            options.steps,
            path,
            max_drop=options.max_drop,
            score=options.score,
            output=output,
        )
        tell(result)
        compressed = result.artifact
    return compressed
