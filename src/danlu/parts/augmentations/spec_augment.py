"""SpecAugment: random bands and time spans of a recording's frames are set to 0.

Frames are scaled, so 0 is the mean of a band. The paper's time warping is left out: it helps least.
Source: Park et al., 2019, arXiv:1904.08779.
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

TAKES = ("frames",)


class Config(Options):
    """How many masks there are, and how large."""

    band_masks: int = Field(2, ge=0, le=100, description="Masks over adjacent bands, in every row.")
    bands: float = Field(
        0.15, ge=0, le=1, description="Most bands of such a mask, as a share of all bands."
    )
    time_masks: int = Field(
        2, ge=0, le=100, description="Masks over adjacent frames, in every row."
    )
    time: float = Field(
        0.15, ge=0, le=1, description="Most frames of such a mask, as a share of the row's frames."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where there are no frames."""
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
