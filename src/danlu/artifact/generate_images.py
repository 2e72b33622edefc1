"""Images from a generative model.

    pixels = danlu.picture("runs/faces", count=16)                    uint8 (16, H, W, C)
    pixels = danlu.picture("runs/clothes", 8, ["Bag", "Sandal"])      8 bags, then 8 sandals

The same count, classes, seed and weights give the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from danlu.artifact.prediction import Artifact, load
from danlu.data.batches import row_pieces
from danlu.errors import ArtifactError, DataError
from danlu.parts.tasks._base import GeneratesImages
from danlu.recipe import Train
from danlu.system.placement import placement_for
from danlu.system.random_draws import counter_bits

TOGETHER = 256  # images generated together


def can_generate_images(artifact: Artifact) -> bool:
    """Whether `picture` can generate images with it."""
    return isinstance(artifact.task, GeneratesImages)


def picture(
    artifact: Artifact | str | Path,
    count: int = 16,
    classes: Sequence[object] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Generated images, uint8 (N, H, W, C): `count`, or where the model knows classes `count` of
    each (None: of all classes).

    Raises ArtifactError for a model that generates no images, DataError for an unknown class.

    >>> import danlu
    >>> recipe = {"task": "image_generation", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "digits"}},
    ...           "model": {"name": "gan", "width": 4}}
    >>> artifact = danlu.train(recipe, "runs/digit-images")
    >>> danlu.picture(artifact, count=3).shape
    (3, 8, 8, 1)
    """
    model = artifact if isinstance(artifact, Artifact) else load(artifact)
    task = model.task
    if not isinstance(task, GeneratesImages):
        raise ArtifactError(
            f"this model generates no images: its task is {model.recipe.task.name}.",
            where=str(model.path or ""),
            hint="train a model with task: image_generation",
        )
    if count < 1:
        raise DataError(f"count must be 1 or more, and is {count}.", where="picture")
    device = placement_for(Train()).device
    class_codes = _class_codes(task, classes)
    total = count * max(len(class_codes), 1)
    inputs = {"row": counter_bits(seed, torch.arange(total))[:, None]}
    if class_codes:
        inputs["class"] = torch.tensor(class_codes).repeat_interleave(count)[:, None]
    module = model.module.to(device).eval()
    images: list[np.ndarray] = []
    with torch.inference_mode():
        for rows in row_pieces(torch.arange(total), TOGETHER):
            piece = {name: tensor[rows].to(device) for name, tensor in inputs.items()}
            images.append(task.pixels(module(piece)))
    return np.concatenate(images)


def _class_codes(task: GeneratesImages, classes: Sequence[object] | None) -> list[int]:
    """The numbers of the classes, of all where None; [] where the model knows no classes."""
    if classes is None:
        return list(range(len(task.classes)))
    return [task.class_number(name) for name in classes]
