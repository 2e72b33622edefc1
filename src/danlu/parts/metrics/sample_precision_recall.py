"""Precision and recall of generated images: how many look real, how much of the real is generated.

    precision   share of generated images in the neighbourhood of some real image
    recall      share of real images in the neighbourhood of some generated image

The neighbourhood of an image is the ball around its features that reaches its k-th nearest image of
its own kind. A generator that repeats one good image has precision 1 and recall near 0. Features
are those of frechet_distance.
Source: Kynkaanniemi et al., 2019, arXiv:1904.06991 (k = 3)."""

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
    """The classifier whose features are compared, and the size of a neighbourhood."""

    classifier: str | None = Field(
        None,
        description="A run or artifact whose features are compared; null: the image's shades, "
        "averaged to at most 8x8.",
    )
    neighbours: int = Field(
        3, ge=1, le=100, description="A neighbourhood reaches to this neighbour."
    )
    most_rows: int = Field(
        10_000,
        ge=10,
        description="Only the first rows of a split are compared, since each is compared with all.",
    )


class SamplePrecisionRecall(ComparesFeatures):
    """Collects the features of all rows, real and generated."""

    joined = True

    def __init__(self, observer: ImageFeatures, neighbours: int, most: int) -> None:
        self.observer = observer
        self.neighbours = neighbours
        self.most = most

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """real, made float32 (B, D)."""
        return {"real": self.observer(batch.inputs["image"])[0], "made": self.observer(outputs)[0]}

    def score(self, total: dict[str, Tensor]) -> dict[str, float | None]:
        """{"sample_precision": share, "sample_recall": share}; None where there are no more rows
        than neighbours."""
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
