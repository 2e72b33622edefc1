"""A model that goes on from another: the weights, and the tokenizer, of a finished artifact (model.weights)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from danlu import registry
from danlu.artifact import artifact as artifacts
from danlu.errors import ArtifactError
from danlu.layers.parametrization import multipliers
from danlu.layers.tensors import unique_tensors
from danlu.recipe import Part, Recipe
from danlu.system.atomic_files import read_checked_json

_LISTED = 6


@dataclass(frozen=True)
class PretrainedStart:
    """What was taken over: the SHA-256 of the weights' file, a sentence for the reader, and the
    names of what was drawn anew."""

    digest: str
    notice: str
    fresh: tuple[str, ...] = ()


def weights_of(recipe: Recipe) -> str | None:
    """The artifact (or run), or the folder of a checkpoint, that the recipe's model starts from."""
    options = recipe.model.options
    return getattr(options, "weights", None) or getattr(options, "path", None)


def load_pretrained(module: nn.Module, recipe: Recipe, classes: Sequence[str] = ()) -> PretrainedStart | None:
    """Put the weights that model.weights names into a fresh module: every tensor that has the same
    name and shape in both.

    Where a task puts the same body elsewhere (an encoder under a new head), names are the same
    behind one prefix. A head that tells others than `classes` (what the outputs of the new one are
    called) apart stays as it was drawn: that it has as many says nothing. None where the recipe
    names none. Raises ArtifactError where there is no sound artifact, or nothing of it fits."""
    part = registry.facts("models", recipe.model.name)
    path = getattr(recipe.model.options, "weights", None)
    if path is None:
        return PretrainedStart(*part.begin(recipe.model.options, module)) if hasattr(part, "begin") else None
    base = artifacts.read(path)
    assert base.path is not None
    rebuilt = [
        each["name"]
        for each in base.changes
        if any(each["state"].get(key) for key in ("fold", "layers", "ranks", "widths"))
    ]
    if rebuilt:
        raise ArtifactError(
            f"it is compressed ({', '.join(rebuilt)}): its layers are no longer those that training begins from.",
            where=path,
            hint="start from the artifact that it was made of",
        )
    digest = read_checked_json(base.path / "artifact.json")["files"]["weights.safetensors"]["sha256"]
    theirs, mine = unique_tensors(base.module), unique_tensors(module)
    fitting = match_tensors(mine, theirs)
    if tuple(base.task.output.names) != tuple(classes):
        fitting = {
            name: other
            for name, other in fitting.items()
            if name not in _head(module, len(classes))
        }
    if not fitting:
        raise ArtifactError(
            f"none of its {len(theirs)} tensors has the name and shape of one of the new model's {len(mine)}.",
            where=path,
            hint=f"give the model ({recipe.model.name}) the sizes of that one ({base.recipe.model.name})",
        )
    if multipliers(module, fitting) != multipliers(base.module, fitting.values()):
        options = base.recipe.model.options
        own = [
            f"{name}: {getattr(options, name)}"
            for name in ("parametrization", "base_width", "base_layers")
            if hasattr(options, name)
        ]
        raise ArtifactError(
            "its weights were learnt behind other multipliers than the new model has, and would mean something else there.",
            where=path,
            hint=f"give the model {', '.join(own).replace('None', 'null')}",
        )
    with torch.no_grad():
        for name, other in fitting.items():
            mine[name].copy_(theirs[other])
    fresh = [name for name in mine if name not in fitting]
    said = f"{len(fitting)} of {len(mine)} tensors of the model are those of {path}"
    if fresh:
        said += f"; drawn anew are {', '.join(fresh[:_LISTED])}{f' and {len(fresh) - _LISTED} more' if len(fresh) > _LISTED else ''}"
    return PretrainedStart(digest, f"{said}.", tuple(fresh))


def _head(module: nn.Module, size: int) -> set[str]:
    """The tensors of the last layer, where it gives one number a class; none where nothing has a
    name."""
    last = [
        name
        for name, each in module.named_modules()
        if next(each.parameters(recurse=False), None) is not None
    ]
    named = (
        [
            f"{last[-1]}.{name}"
            for name, _ in module.get_submodule(last[-1]).named_parameters(recurse=False)
        ]
        if last
        else []
    )
    weights = dict(module.named_parameters())
    return {name for name in named if size and name in weights and len(weights[name]) == size}


def recipe_to_store(recipe: Recipe) -> Recipe:
    """The recipe as an artifact keeps it: what a model read outside of it, but for the weights, is
    written in (its `settled`)."""
    part = registry.facts("models", recipe.model.name)
    if not hasattr(part, "settled"):
        return recipe
    return replace(recipe, model=Part(recipe.model.name, part.settled(recipe.model.options)))


def match_tensors(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """The tensor of `theirs` for each of `mine` that has one: the same name and shape; else the
    same shape and name behind a prefix.

    That prefix, one on each side for all of them, is the one that most tensors ask for.
    """
    found = {
        name: name
        for name, each in mine.items()
        if name in theirs and theirs[name].shape == each.shape
    }
    left = [name for name in mine if name not in found]
    free = {name for name in theirs if name not in found}
    votes = Counter(
        pair for name in left for other in free if (pair := _prefixes(name, other)) is not None
    )
    same = len(found)
    for (before, after), count in votes.most_common(1):
        for name in (
            left if count > max(1, same) else ()
        ):  # a body elsewhere, not a layer that looks like another
            other = after + name.removeprefix(before)
            if (
                name.startswith(before)
                and other in free
                and theirs[other].shape == mine[name].shape
            ):
                found[name] = other
    return found


def _prefixes(one: str, other: str) -> tuple[str, str] | None:
    """What stands before the longest end that two names share, of whole words; None where they
    share none."""
    words, others = one.split("."), other.split(".")
    shared = 0
    while shared < min(len(words), len(others)) and words[-1 - shared] == others[-1 - shared]:
        shared += 1
    if shared < 2:  # "weight" alone says nothing
        return None
    return tuple(
        "".join(f"{word}." for word in each[: len(each) - shared]) for each in (words, others)
    )  # type: ignore[return-value]
