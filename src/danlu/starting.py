"""A model that goes on from another: the weights, and the tokenizer, of a finished artifact (model.weights)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from danlu import artifact as artifacts
from danlu.durable import read_sealed
from danlu.errors import ArtifactError
from danlu.recipe import Recipe
from danlu.state import unique_tensors

_LISTED = 6


@dataclass(frozen=True)
class Start:
    """What was taken over: the SHA-256 of the weights' file, and a sentence for the reader."""

    digest: str
    notice: str


def weights_of(recipe: Recipe) -> str | None:
    """The artifact (or run) that the recipe's model starts from."""
    return getattr(recipe.model.options, "weights", None)


def take_over(module: nn.Module, recipe: Recipe) -> Start | None:
    """Put the weights that model.weights names into a fresh module: every tensor that has the same name and shape in both.

    None where the recipe names none. Raises ArtifactError where there is no sound artifact, or nothing of it fits.
    """
    path = weights_of(recipe)
    if path is None:
        return None
    base = artifacts.read(path)
    assert base.path is not None
    digest = read_sealed(base.path / "artifact.json")["files"]["weights.safetensors"]["sha256"]
    theirs, mine = unique_tensors(base.module), unique_tensors(module)
    fitting = [name for name, each in mine.items() if name in theirs and theirs[name].shape == each.shape]
    if not fitting:
        raise ArtifactError(
            f"none of its {len(theirs)} tensors has the name and shape of one of the new model's {len(mine)}.",
            where=path,
            hint=f"give the model ({recipe.model.name}) the sizes of that one ({base.recipe.model.name})",
        )
    with torch.no_grad():
        for name in fitting:
            mine[name].copy_(theirs[name])
    fresh = [name for name in mine if name not in fitting]
    said = f"{len(fitting)} of {len(mine)} tensors of the model are those of {path}"
    if fresh:
        said += (
            f"; drawn anew are {', '.join(fresh[:_LISTED])}{f' and {len(fresh) - _LISTED} more' if len(fresh) > _LISTED else ''}"
        )
    return Start(digest, f"{said}.")
