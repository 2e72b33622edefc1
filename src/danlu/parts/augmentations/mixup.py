"""Mixup: each row is blended with another row of the batch, and so is its target.

x = s x_i + (1 - s) x_j, and the target likewise. s is drawn from Beta(alpha, alpha) for each row
and replaced by max(s, 1 - s), so that a row keeps the larger weight. Classes become probabilities;
the numbers of a regression are blended directly.
Source: Zhang et al., 2017, arXiv:1710.09412.
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
    """How strongly rows are blended, and how often."""

    alpha: float = Field(
        0.2,
        gt=0,
        le=100,
        description="Both parameters of the Beta distribution; larger blends more evenly.",
    )
    probability: float = Field(1.0, ge=0, le=1, description="Share of rows that are blended.")


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Augmentation:
    """An Augmentation. PartError for inputs that cannot be blended, such as categories."""
    import torch

    from danlu.parts.augmentations._images import mixed_target, partners, with_inputs
    from danlu.system.random_draws import chosen_rows, draw_from_quantiles, symmetric_beta, uniform

    other = [
        (name, spec.kind)
        for name, spec in inputs.items()
        if spec.kind not in ("numbers", "image", "series")
    ]
    if other:
        name, kind = other[0]
        raise PartError(
            f"mixup blends numbers and images, and {name} holds {kind}.",
            hint="encode them with one_hot, or leave mixup out"
            if kind == "categories"
            else "leave mixup out",
        )
    quantiles = symmetric_beta(config.alpha)

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        rows = batch.rows
        share_B = draw_from_quantiles(quantiles, uniform(generator, len(rows), like=rows))
        share_B = torch.maximum(share_B, 1 - share_B)
        if config.probability < 1:
            share_B = torch.where(chosen_rows(generator, config.probability, rows), share_B, 1.0)
        partner_B = partners(generator, rows)
        mixed = {
            name: torch.lerp(x[partner_B], x, share_B.to(x.dtype).view(-1, *(1,) * (x.ndim - 1)))
            for name, x in batch.inputs.items()
        }
        result = with_inputs(batch, mixed)
        result.target = mixed_target("mixup", batch.target, output, partner_B, share_B)
        return result

    return augment
