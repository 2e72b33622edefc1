"""Random rotation about the centre, by a uniform angle from -degrees to +degrees, bilinear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """How far images are rotated, and what fills the corners."""

    degrees: float = Field(10.0, gt=0, le=180, description="Largest angle, in degrees, either way.")
    fill: Literal["edge", "reflect", "zero"] = Field(
        "edge", description="What fills the corners; zero is the mean image."
    )
    probability: float = Field(1.0, ge=0, le=1, description="Share of rows that are rotated.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there is no image."""
    import torch
    from torch.nn import functional

    from danlu.parts.augmentations._images import images_of, with_inputs
    from danlu.system.random_draws import chosen_rows, uniform

    names = images_of("rotate", inputs)
    padding_mode = {"edge": "border", "reflect": "reflection", "zero": "zeros"}[config.fill]

    def turn(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, _, height, width = x_BCHW.shape
        angle_B = (uniform(generator, count, like=x_BCHW) * 2 - 1) * math.radians(config.degrees)
        picked_B = (
            chosen_rows(generator, config.probability, x_BCHW) if config.probability < 1 else None
        )
        cosine, sine, nothing = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B)
        # affine_grid counts both sides from -1 to 1: an image that is not square needs its sides in
        # the off-diagonal
        rows = [cosine, -sine * (height / width), nothing, sine * (width / height), cosine, nothing]
        matrix_B23 = torch.stack(rows, dim=1).view(count, 2, 3).to(x_BCHW.dtype)
        grid = functional.affine_grid(matrix_B23, list(x_BCHW.shape), align_corners=False)
        turned = functional.grid_sample(
            x_BCHW, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False
        )
        return (
            turned
            if picked_B is None
            else torch.where(picked_B[:, None, None, None], turned, x_BCHW)
        )

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: turn(batch.inputs[name], generator) for name in names})

    return augment
