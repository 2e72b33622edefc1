"""CutMix: a box of each image is replaced by the same box of another image of the batch.

The box takes 1 - s of the area, with s drawn from Beta(alpha, alpha) for each row, and is clipped
at the edge of the image. The target is the mean of both targets, weighted by the areas after
clipping; classes become probabilities.
Source: Yun et al., 2019, arXiv:1905.04899.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """How often a box is replaced, and how large it is."""

    alpha: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Both parameters of the Beta distribution; 1 draws areas uniformly.",
    )
    probability: float = Field(
        0.5, ge=0, le=1, description="Share of rows that get a box of another row."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where the inputs are anything but a single image."""
    import torch

    from danlu.parts.augmentations._images import (
        box_mask,
        images_of,
        mixed_target,
        partners,
        with_inputs,
    )
    from danlu.system.random_draws import chosen_rows, draw_from_quantiles, symmetric_beta, uniform

    (name, *others) = images_of("cutmix", inputs)
    if others or len(inputs) > 1:
        raise PartError(
            f"cutmix takes one image a row, and the inputs are {', '.join(inputs)}.",
            hint="leave cutmix out: the target could not follow a box that changes one input of "
            "several",
        )
    quantiles = symmetric_beta(config.alpha)

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        x_BCHW = batch.inputs[name]
        count, _, height, width = x_BCHW.shape
        drawn_B, down_B, across_B = uniform(generator, 3, count, like=x_BCHW).unbind()
        side_B = (1 - draw_from_quantiles(quantiles, drawn_B)).sqrt()
        side_B = torch.where(chosen_rows(generator, config.probability, x_BCHW), side_B, 0.0)
        middle_y_B, middle_x_B = (down_B * height).floor(), (across_B * width).floor()
        half_tall_B, half_wide_B = (side_B * height / 2).floor(), (side_B * width / 2).floor()
        top_B, bottom_B = (
            (middle_y_B - half_tall_B).clamp(min=0),
            (middle_y_B + half_tall_B).clamp(max=height),
        )
        left_B, right_B = (
            (middle_x_B - half_wide_B).clamp(min=0),
            (middle_x_B + half_wide_B).clamp(max=width),
        )
        inside = box_mask(top_B, left_B, bottom_B - top_B, right_B - left_B, x_BCHW)
        partner_B = partners(generator, x_BCHW)
        result = with_inputs(batch, {name: torch.where(inside, x_BCHW[partner_B], x_BCHW)})
        share_B = 1 - (bottom_B - top_B) * (right_B - left_B) / (height * width)
        result.target = mixed_target("cutmix", batch.target, output, partner_B, share_B)
        return result

    return augment
