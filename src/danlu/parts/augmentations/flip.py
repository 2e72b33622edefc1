"""Random flip: some images are mirrored left to right, top to bottom, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.parts.augmentations._base import Augmentation
    from danlu.terms import Batch, InputSpec, OutputSpec


class Config(Options):
    """Which flips, and how often."""

    horizontal: bool = Field(True, description="Mirror left to right.")
    vertical: bool = Field(False, description="Mirror top to bottom.")
    probability: float = Field(
        0.5, ge=0, le=1, description="Share of rows mirrored; drawn for each direction separately."
    )

    @model_validator(mode="after")
    def _one_way_at_least(self) -> Config:
        if not (self.horizontal or self.vertical):
            raise ValueError("horizontal and vertical are both false: flip would do nothing")
        return self


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there is no image."""
    import torch

    from danlu.parts.augmentations._images import images_of, with_inputs
    from danlu.system.random_draws import chosen_rows

    names = images_of("flip", inputs)
    sides = [side for side, wanted in ((3, config.horizontal), (2, config.vertical)) if wanted]

    def mirror(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for side in sides:
            picked_B = chosen_rows(generator, config.probability, x_BCHW)
            x_BCHW = torch.where(picked_B[:, None, None, None], x_BCHW.flip(side), x_BCHW)
        return x_BCHW

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: mirror(batch.inputs[name], generator) for name in names})

    return augment
