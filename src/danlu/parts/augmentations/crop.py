"""Random crop: the image is shifted by a few pixels.

This equals padding by `padding` pixels on each side and cutting out the original size at a random
position. The edge is filled by one of: edge (the outermost pixels repeated), reflect (the image
mirrored) or zero (the mean of the training images, since pixels are normalised).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """How far images are shifted, and what fills the edge."""

    padding: int = Field(
        4, ge=1, le=4096, description="Largest shift, in pixels, up, down, left and right."
    )
    fill: Literal["edge", "reflect", "zero"] = Field("edge", description="What fills the edge.")
    probability: float = Field(1.0, ge=0, le=1, description="Share of rows that are cropped.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there is no image, or one too small to be reflected."""
    import torch

    from danlu.parts.augmentations._images import images_of, with_inputs
    from danlu.system.random_draws import chosen_rows, uniform

    names = images_of("crop", inputs)
    smallest = min(min(inputs[name].shape[1:]) for name in names)
    if config.fill == "reflect" and config.padding >= smallest:
        raise PartError(
            f"crop cannot reflect {config.padding} pixels of an image of {smallest}.",
            hint=f"set padding below {smallest}, or fill: edge",
        )

    def source(size: int, shift_B: torch.Tensor) -> torch.Tensor:
        """Source index of each pixel along one axis, int64 (B, size); may lie outside the image."""
        return torch.arange(size, device=shift_B.device) + shift_B[:, None]

    def inner(index: torch.Tensor, size: int) -> torch.Tensor:
        if config.fill == "reflect":
            index = (size - 1) - ((size - 1) - index.abs()).abs()
        return index.clamp(0, size - 1)

    def shift(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        _, channels, height, width = x_BCHW.shape
        drawn = (
            uniform(generator, 2, len(x_BCHW), like=x_BCHW) * (2 * config.padding + 1)
        ).long() - config.padding
        if config.probability < 1:
            drawn = torch.where(chosen_rows(generator, config.probability, x_BCHW), drawn, 0)
        y_BH, x_BW = source(height, drawn[0]), source(width, drawn[1])
        flat_BP = (
            inner(y_BH, height)[:, :, None] * width + inner(x_BW, width)[:, None, :]
        ).flatten(1)
        moved = (
            x_BCHW.flatten(2).gather(2, flat_BP[:, None].expand(-1, channels, -1)).view_as(x_BCHW)
        )
        if config.fill == "zero":
            y_inside, x_inside = (y_BH >= 0) & (y_BH < height), (x_BW >= 0) & (x_BW < width)
            moved = torch.where((y_inside[:, :, None] & x_inside[:, None, :])[:, None], moved, 0.0)
        return moved

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: shift(batch.inputs[name], generator) for name in names})

    return augment
