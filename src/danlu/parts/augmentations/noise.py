"""Gaussian noise added to numbers or to pixels.

By default numbers and pixels are scaled to standard deviation 1, so `scale` is relative to that.
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
    """How strong the noise is, and which inputs get it."""

    scale: float = Field(
        0.1,
        gt=0,
        le=100,
        description="Standard deviation of the noise, in the units of the scaled inputs.",
    )
    kind: Literal["numbers", "image", "all"] = Field(
        "all", description="Which inputs get noise; all: both."
    )
    probability: float = Field(1.0, ge=0, le=1, description="Share of rows that get noise.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError where the inputs hold nothing of this kind."""
    import torch

    from danlu.parts.augmentations._images import with_inputs
    from danlu.system.random_draws import chosen_rows, normal_like

    kinds = ("numbers", "image", "series") if config.kind == "all" else (config.kind,)
    names = [name for name, spec in inputs.items() if spec.kind in kinds]
    if not names:
        what = "numbers or images" if config.kind == "all" else config.kind
        raise PartError(
            f"the augmentation noise changes {what}, and the inputs hold none.",
            hint="leave noise out",
        )

    def disturb(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        disturbed = x + normal_like(generator, x) * config.scale
        if config.probability == 1:
            return disturbed
        return torch.where(
            chosen_rows(generator, config.probability, x).view(-1, *(1,) * (x.ndim - 1)),
            disturbed,
            x,
        )

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        return with_inputs(batch, {name: disturb(batch.inputs[name], generator) for name in names})

    return augment
