"""k-fold cross-validation: k trainings, each validated on rows that the others train on; for small
data."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from danlu.parts.watchers._base import Watcher
from danlu.recipe import Recipe
from danlu.training.loop import Output, train


class CrossValidation(TypedDict):
    """Validation scores of k trainings by name.

    folds   one dict per training, in the order of the folds
    mean    the mean of each score over the folds
    std     its sample standard deviation over the folds
    """

    folds: list[dict[str, float]]
    mean: dict[str, float]
    std: dict[str, float]


def cross_validate(
    recipe: Recipe,
    folds: int,
    run: str | Path | None = None,
    *,
    output: Output = "quiet",
    beside: Callable[[], Watcher | None] = lambda: None,
    after: Callable[[list[dict[str, float]]], None] = lambda scores: None,
) -> CrossValidation:
    """Train `folds` models in RUN/fold-1, RUN/fold-2, ...; {"folds": [scores], "mean": {...},
    "std": {...}} of their validation scores.

    The test split, where there is one, is in no fold. `std` is the sample standard deviation over
    folds. A killed fold resumes, and finished folds are not trained again. `beside()` makes a
    watcher for each fold; `after` is called after each with the scores of all folds so far, and
    what it raises ends the cross-validation.
    Raises what danlu.train raises.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> recipe = danlu.read_recipe(recipe)
    >>> scores = danlu.cross_validate(recipe, 2, "runs/iris-folds")
    >>> sorted(scores), len(scores["folds"])
    (['folds', 'mean', 'std'], 2)
    """
    home = Path(run) if run is not None else Path("runs") / recipe.name
    scores: list[dict[str, float]] = []
    for index in range(folds):
        artifact = train(
            recipe,
            home / f"fold-{index + 1}-of-{folds}",
            output=output,
            fold=(index, folds),
            beside=beside(),
        )
        scores.append(
            {
                name: value
                for name, value in artifact.scores["validation"].items()
                if isinstance(value, int | float)
            }
        )
        after(scores)
    names = [
        name
        for name in scores[0]
        if name != "rows" and all(name in fold_scores for fold_scores in scores)
    ]
    return {
        "folds": scores,
        "mean": {
            name: statistics.fmean(fold_scores[name] for fold_scores in scores) for name in names
        },
        "std": {
            name: statistics.stdev(fold_scores[name] for fold_scores in scores) for name in names
        },
    }
