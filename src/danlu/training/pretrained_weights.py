"""A model that starts from the weights of a finished artifact (model.weights) or of a checkpoint
(model: pretrained)."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

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
from danlu.parts.models import _base as models
from danlu.recipe import Part, Recipe
from danlu.system.atomic_files import read_checked_json

_LISTED = 6


@dataclass(frozen=True)
class PretrainedStart:
    """The weights that a model starts from.

    digest   SHA-256 of their file
    notice   a sentence for the user
    fresh    the names of tensors that keep their random initial values
    """

    digest: str
    notice: str
    fresh: tuple[str, ...] = ()


def weights_of(recipe: Recipe) -> str | None:
    """The artifact (or run), or the folder of a checkpoint, that the recipe's model starts from."""
    options = recipe.model.options
    return models.weights_of(options) or models.pretrained_path(options)


def load_pretrained(
    module: nn.Module, recipe: Recipe, classes: Sequence[str] = ()
) -> PretrainedStart | None:
    """Copy the weights that model.weights names into a new module: every tensor with the same name
    and shape in both. None where the recipe names no weights.

    Where a task has the same body under another name (an encoder under a new head), names are
    matched behind one common prefix. The output layer is copied only where the artifact has the
    same `classes`, by name: an equal number of others would mean something else. Raises
    ArtifactError where there is no sound artifact, or none of its tensors fits."""
    begin = registry.model_facts(recipe.model.name).begin
    path = models.weights_of(recipe.model.options)
    if path is None:
        return PretrainedStart(*begin(recipe.model.options, module)) if begin is not None else None
    base = artifacts.read(path)
    assert base.path is not None
    compressors = [
        change["name"]
        for change in base.changes
        if any(change["state"].get(key) for key in ("fold", "layers", "ranks", "widths"))
    ]
    if compressors:
        raise ArtifactError(
            f"it is compressed ({', '.join(compressors)}): its layers are no longer those that a "
            "training starts from.",
            where=path,
            hint="start from the artifact that was compressed",
        )
    digest = read_checked_json(base.path / "artifact.json")["files"]["weights.safetensors"][
        "sha256"
    ]
    learnt, target = unique_tensors(base.module), unique_tensors(module)
    fitting = match_tensors(target, learnt)
    if tuple(base.task.output.names) != tuple(classes):
        fitting = {
            name: other
            for name, other in fitting.items()
            if name not in _head(module, len(classes))
        }
    if not fitting:
        raise ArtifactError(
            f"none of its {len(learnt)} tensors has the name and shape of one of the new model's "
            f"{len(target)}.",
            where=path,
            hint=f"give the model ({recipe.model.name}) the sizes of that one "
            f"({base.recipe.model.name})",
        )
    if multipliers(module, fitting) != multipliers(base.module, fitting.values()):
        options = base.recipe.model.options.model_dump()
        own = [
            f"{name}: {options[name]}"
            for name in ("parametrization", "base_width", "base_layers")
            if name in options
        ]
        raise ArtifactError(
            "its weights were trained with other multipliers than the new model has (muP), "
            "and would mean something else there.",
            where=path,
            hint=f"give the model {', '.join(own).replace('None', 'null')}",
        )
    with torch.no_grad():
        for name, other in fitting.items():
            target[name].copy_(learnt[other])
    fresh = [name for name in target if name not in fitting]
    notice = f"{len(fitting)} of {len(target)} tensors of the model are from {path}"
    if fresh:
        more = f" and {len(fresh) - _LISTED} more" if len(fresh) > _LISTED else ""
        notice += f"; initialized at random are {', '.join(fresh[:_LISTED])}{more}"
    return PretrainedStart(digest, f"{notice}.", tuple(fresh))


def _head(module: nn.Module, size: int) -> set[str]:
    """The tensors of the last layer, where it has one output per class; none where classes have no
    names."""
    last = [
        name
        for name, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
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
    """The recipe as an artifact stores it: whatever the model read from other files, but the
    weights, is written into its options (ModelFacts.settled)."""
    settled = registry.model_facts(recipe.model.name).settled
    if settled is None:
        return recipe
    return replace(recipe, model=Part(recipe.model.name, settled(recipe.model.options)))


def match_tensors(target: Mapping[str, Tensor], learnt: Mapping[str, Tensor]) -> dict[str, str]:
    """The name in `learnt` for each name in `target` that has a match: the same name and shape;
    else the same shape, and the same name behind a prefix.

    The prefix, one on each side for all of them, is the pair that most tensors agree on.

    >>> body = {"body.a.weight": torch.ones(2), "body.b.weight": torch.ones(3)}
    >>> match_tensors({"a.weight": torch.ones(2), "b.weight": torch.ones(3)}, body)
    {'a.weight': 'body.a.weight', 'b.weight': 'body.b.weight'}
    """
    matches = {
        name: name
        for name, tensor in target.items()
        if name in learnt and learnt[name].shape == tensor.shape
    }
    left = [name for name in target if name not in matches]
    free = {name for name in learnt if name not in matches}
    votes = Counter(
        pair for name in left for other in free if (pair := _prefixes(name, other)) is not None
    )
    same = len(matches)
    for (before, after), count in votes.most_common(1):
        # most tensors must agree: a whole body under another name, not one layer like another
        for name in left if count > max(1, same) else ():
            other = after + name.removeprefix(before)
            if (
                name.startswith(before)
                and other in free
                and learnt[other].shape == target[name].shape
            ):
                matches[name] = other
    return matches


def _prefixes(one: str, other: str) -> tuple[str, str] | None:
    """The prefixes before the longest common end of two names, in whole words; None where that is
    shorter than two words."""
    words, others = one.split("."), other.split(".")
    shared = 0
    while shared < min(len(words), len(others)) and words[-1 - shared] == others[-1 - shared]:
        shared += 1
    if shared < 2:  # "weight" alone says nothing
        return None
    return tuple(
        "".join(f"{word}." for word in name_words[: len(name_words) - shared])
        for name_words in (words, others)
    )  # type: ignore[return-value]
