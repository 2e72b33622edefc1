"""Pictures from a generator of images.

    pixels = danlu.picture("runs/faces", count=16)                    uint8 (16, H, W, C)
    pixels = danlu.picture("runs/clothes", 8, ["Bag", "Sandal"])      8 bags, then 8 sandals

The same count, classes, seed and weights give the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.artifact.prediction import Artifact, load
from danlu.errors import ArtifactError, DataError
from danlu.parts.tasks._base import GeneratesImages
from danlu.recipe import Train
from danlu.system.placement import placement_for
from danlu.system.random_draws import counter_bits

TOGETHER = 256  # images made at a time


def can_generate_images(artifact: Artifact) -> bool:
    """Whether `picture` can make any with it."""
    return isinstance(artifact.task, GeneratesImages)


def picture(
    artifact: Artifact | str | Path,
    count: int = 16,
    classes: Sequence[Any] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Generated images, uint8 (N, H, W, C): `count`, or `count` of each class where the generator
    knows classes (null: of all).

    Raises ArtifactError for a model that makes no images, DataError for a class it does not know.

    >>> import danlu
    >>> recipe = {"task": "image_generation", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "digits"}},
    ...           "model": {"name": "gan", "width": 4}}
    >>> artifact = danlu.train(recipe, "runs/digit-images")
    >>> danlu.picture(artifact, count=3).shape
    (3, 8, 8, 1)
    """
    model = artifact if isinstance(artifact, Artifact) else load(artifact)
    if not can_generate_images(model):
        raise ArtifactError(
            f"this model makes no images: its task is {model.recipe.task.name}.",
            where=str(model.path or ""),
            hint="pictures are made with models of the task image_generation",
        )
    if count < 1:
        raise DataError(f"count must be 1 or more, and is {count}.", where="picture")
    device = placement_for(Train()).device
    class_codes = _class_codes(model.task, classes)
    total = count * max(len(class_codes), 1)
    inputs = {"row": counter_bits(seed, torch.arange(total))[:, None]}
    if class_codes:
        inputs["class"] = torch.tensor(class_codes).repeat_interleave(count)[:, None]
    module = model.module.to(device).eval()
    images = []
    with torch.inference_mode():
        for rows in torch.arange(total).split(TOGETHER):
            images.append(
                model.task.pixels(
                    module({name: tensor[rows].to(device) for name, tensor in inputs.items()})
                )
            )
    return np.concatenate(images)


def _class_codes(task: Any, classes: Sequence[Any] | None) -> list[int]:
    """The numbers of the classes asked for; [] where the generator knows none."""
    if classes is None:
        return list(range(len(task.classes)))
    return [task.class_number(name) for name in classes]
