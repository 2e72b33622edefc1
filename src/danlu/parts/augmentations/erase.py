"""Random erasing: a box of the image, of random position and shape, is set to zero or to noise.

Pixels are normalised, so zero is the mean of the training images, and the noise has their standard
deviation.
Source: Zhong et al., 2017, arXiv:1708.04896.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """How often a box is erased, its size and its shape."""

    probability: float = Field(0.5, ge=0, le=1, description="Share of rows a box is erased from.")
    smallest: float = Field(
        0.02, gt=0, le=1, description="Smallest box, as a share of the image's area."
    )
    largest: float = Field(
        0.25, gt=0, le=1, description="Largest box, as a share of the image's area."
    )
    aspect: float = Field(
        0.4, gt=0, le=1, description="Height over width lies between aspect and 1 / aspect."
    )
    fill: Literal["zero", "noise"] = Field("zero", description="What the box is filled with.")

    @model_validator(mode="after")
    def _smallest_is_not_above_largest(self) -> Config:
        if self.smallest > self.largest:
            raise ValueError("smallest must be at most largest")
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there is no image."""
    import torch

    from danlu.parts.augmentations._images import box_mask, images_of, with_inputs
    from danlu.system.random_draws import chosen_rows, normal_like, uniform

    names = images_of("erase", inputs)

    def erase(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, _, height, width = x_BCHW.shape
        area_B, shape_B, down_B, across_B = uniform(generator, 4, count, like=x_BCHW).unbind()
        area_B = (config.smallest + area_B * (config.largest - config.smallest)) * height * width
        ratio_B = torch.exp((shape_B * 2 - 1) * -math.log(config.aspect))
        tall_B = (area_B * ratio_B).sqrt().round().clamp(1, height)
        wide_B = (area_B / ratio_B).sqrt().round().clamp(1, width)
        tall_B = torch.where(chosen_rows(generator, config.probability, x_BCHW), tall_B, 0)
        top_B = (down_B * (height - tall_B + 1)).floor()
        left_B = (across_B * (width - wide_B + 1)).floor()
        inside = box_mask(top_B, left_B, tall_B, wide_B, x_BCHW)
        filling = normal_like(generator, x_BCHW) if config.fill == "noise" else x_BCHW.new_zeros(())
        return torch.where(inside, filling, x_BCHW)

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: erase(batch.inputs[name], generator) for name in names})

    return augment
