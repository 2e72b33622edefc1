"""Random brightness and contrast: x becomes m + c (x - m) + b, where m is the image's mean.

m is one mean over all channels. c is drawn from exp(-contrast) to exp(contrast), uniformly in its
logarithm, and b uniformly from -brightness to +brightness; both once per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """How far brightness and contrast change."""

    brightness: float = Field(
        0.2,
        ge=0,
        le=10,
        description="Largest change of brightness, in standard deviations of a pixel.",
    )
    contrast: float = Field(
        0.2,
        ge=0,
        le=5,
        description="Largest change of the logarithm of contrast; 0.2 is about 20 percent.",
    )
    probability: float = Field(1.0, ge=0, le=1, description="Share of rows that are changed.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there is no image."""
    import torch

    from danlu.parts.augmentations._images import images_of, with_inputs
    from danlu.system.random_draws import chosen_rows, uniform

    names = images_of("brightness_contrast", inputs)

    def change(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        factor, offset = (uniform(generator, 2, len(x_BCHW), 1, 1, 1, like=x_BCHW) * 2 - 1).to(
            x_BCHW.dtype
        )
        mean = x_BCHW.mean((1, 2, 3), keepdim=True)
        changed = (
            torch.lerp(mean, x_BCHW, (factor * config.contrast).exp()) + offset * config.brightness
        )
        if config.probability == 1:
            return changed
        return torch.where(
            chosen_rows(generator, config.probability, x_BCHW)[:, None, None, None], changed, x_BCHW
        )

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: change(batch.inputs[name], generator) for name in names})

    return augment
