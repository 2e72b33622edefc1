"""Precision and recall of generated images: how many look real, and how much of what is real can be generated.

    precision   share of generated images that lie, in some real image's neighbourhood
    recall      share of real images that lie in some generated image's neighbourhood

The neighbourhood of an image is the ball around its features that reaches its k-th nearest image of
its own kind. A generator that repeats one good image has precision 1 and recall near 0. Features as
for frechet_distance.
Source: Kynkaanniemi et al., 2019, arXiv:1904.06991 (k = 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import ComparesFeatures
from danlu.parts.metrics._image_features import ImageFeatures
from danlu.parts.metrics._reduce import ratio
from danlu.parts.tasks._base import GeneratesImages
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("samples",)
BETTER = "higher"
_BLOCK = 1024  # rows compared with all others at a time


class Config(Options):
    """Through whose eyes, and how near is near."""

    classifier: str | None = Field(
        None,
        description="A run or artifact whose features are compared; null: the image's shades, small.",
    )
    neighbours: int = Field(3, ge=1, le=100, description="The neighbour that a ball reaches to.")
    most_rows: int = Field(
        10_000,
        ge=10,
        description="Rows compared at most, the first of the split: every one is compared with every other.",
    )


class SamplePrecisionRecall(ComparesFeatures):
    """Features of all rows, real and generated."""

    joined = True

    def __init__(self, observer: ImageFeatures, neighbours: int, most: int) -> None:
        self.observer = observer
        self.neighbours = neighbours
        self.most = most

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """real, made float32 (B, D)."""
        return {"real": self.observer(batch.inputs["image"])[0], "made": self.observer(outputs)[0]}

    def score(self, total: dict[str, Tensor]) -> dict[str, float | None]:
        """{"sample_precision": share, "sample_recall": share}; None for as few rows as
        neighbours."""
        real, generated = total["real"][: self.most], total["made"][: self.most]
        if len(real) <= self.neighbours:
            return {"sample_precision": None, "sample_recall": None}
        return {
            "sample_precision": ratio(_covered(generated, real, self.neighbours), len(generated)),
            "sample_recall": ratio(_covered(real, generated, self.neighbours), len(real)),
        }


def _covered(points: Tensor, others: Tensor, neighbours: int) -> int:
    """How many of `points` lie in the ball of at least one of `others`."""
    import torch

    radii = torch.cat(
        [
            torch.cdist(block, others).kthvalue(neighbours + 1, dim=1).values
            for block in others.split(_BLOCK)
        ]
    )
    return sum(
        int((torch.cdist(block, others) <= radii).any(dim=1).sum())
        for block in points.split(_BLOCK)
    )


def build(config: Config, task: GeneratesImages) -> SamplePrecisionRecall:
    """The metric."""
    return SamplePrecisionRecall(
        ImageFeatures(config.classifier, task.image), config.neighbours, config.most_rows
    )
