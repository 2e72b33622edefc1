"""A whole recipe: train, then what its section compress asks. The run's folder holds both: artifact/ as it was trained, and beside it
artifact-compressed/.

The section changes nothing of the training: a run that has finished is compressed without being
trained anew, by other steps too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.prediction import Artifact
from danlu.compression.compress import CompressionReport, compress, existing_result
from danlu.parts.watchers._base import Watcher
from danlu.recipe import Recipe
from danlu.training import loop

COMPRESSED = "artifact-compressed"


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    run: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    output: Any = "quiet",
    fold: tuple[int, int] | None = None,
    beside: Watcher | None = None,
    tell: Callable[[CompressionReport], None] = lambda result: None,
) -> Artifact:
    """Train a recipe (a Recipe, a file, or a dict) in the run folder `run` (default runs/<recipe
    name>); returns the artifact.

    The same call continues a run that was cut off, and returns at once the artifact of one that has
    finished. Where the recipe has a section compress, the artifact that is returned is the
    compressed one, in artifact-compressed/ beside it; `tell` hears what that cost, where it was
    made anew. `beside` is a watcher that is no part of the recipe; what it raises ends the
    training. Raises DanluError: a wrong recipe or data, a folder of another run, training that
    stopped itself, a compressed form that loses more than compress.max_drop (artifact/ stays), an
    interruption (state saved).

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
