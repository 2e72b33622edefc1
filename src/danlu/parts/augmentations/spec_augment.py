"""SpecAugment: bands and stretches of time of a recording's frames are blanked at random.

Park et al., 2019, arXiv:1904.08779, without its warping of time, which gains least. Frames are
scaled, so 0 is the mean of a band."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    import torch

    from danlu.terms import Batch, InputSpec, OutputSpec

TAKES = ("frames",)


class Config(Options):
    """How many masks, and how large."""

    band_masks: int = Field(
        2, ge=0, le=100, description="Masks over neighbouring bands, in every row."
    )
    bands: float = Field(
        0.15, ge=0, le=1, description="Bands of such a mask at most, as a share of all."
    )
    time_masks: int = Field(
        2, ge=0, le=100, description="Masks over neighbouring frames, in every row."
    )
    time: float = Field(
        0.15, ge=0, le=1, description="Frames of such a mask at most, as a share of the row's own."
    )


def build(
    config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec
) -> Callable[[Batch, torch.Generator], Batch]:
    """augment(batch, generator). Raises PartError where there are no frames."""
    import torch

    from danlu.parts.augmentations._images import with_inputs
    from danlu.system.random_draws import uniform

    names = [name for name, spec in inputs.items() if spec.kind == "frames"]
    if not names:
        raise PartError(
            "the augmentation spec_augment changes frames, and the inputs hold none.",
            hint="leave spec_augment out",
        )

    def mask(
        x_BTF: torch.Tensor, lengths_B: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        blank = torch.zeros(x_BTF.shape, dtype=torch.bool, device=x_BTF.device)
        bands = torch.full_like(lengths_B, x_BTF.shape[2])
        for count, share, whole_B, axis in (
            (config.band_masks, config.bands, bands, 2),
            (config.time_masks, config.time, lengths_B, 1),
        ):
            for _ in range(count):
                wide_B, from_B = uniform(generator, 2, len(x_BTF), like=x_BTF).unbind()
                wide_B = (wide_B * (share * whole_B + 1)).floor()
                begin_B = (from_B * (whole_B - wide_B + 1)).floor()
                index = torch.arange(x_BTF.shape[axis], device=x_BTF.device)
                inside = (index >= begin_B[:, None]) & (index < (begin_B + wide_B)[:, None])
                blank |= inside[:, None, :] if axis == 2 else inside[:, :, None]
        return x_BTF.masked_fill(blank, 0.0)

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        changed = {
            name: mask(batch.inputs[name], batch.inputs[f"{name}_lengths"], generator)
            for name in names
        }
        return with_inputs(batch, changed)

    return augment
