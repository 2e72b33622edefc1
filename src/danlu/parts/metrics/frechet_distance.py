"""Frechet distance between the features of generated and of real images; 0 where they are alike.

    |m - m'|^2 + trace(S + S' - 2 (S S')^(1/2))

m, S: mean and covariance of the features of real images; m', S': of generated images. Features are
the inputs of the last layer of a classifier trained by danlu (option classifier), else the image's
own shades, averaged to at most 8x8. Compare distances only over the same features and the same
number of rows: fewer rows make them larger.
Source: Heusel et al., 2017, arXiv:1706.08500 (there with an Inception network, so its numbers are
not comparable)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu.parts.metrics._base import ComparesFeatures
from danlu.parts.metrics._image_features import ImageFeatures
from danlu.parts.tasks._base import GeneratesImages
from danlu.recipe import Options

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("samples",)
BETTER = "lower"


class Config(Options):
    """The classifier whose features are compared."""

    classifier: str | None = Field(
        None,
        description="A run or artifact whose features are compared; null: the image's shades, "
        "averaged to at most 8x8.",
    )


class FrechetDistance(ComparesFeatures):
    """Sums features and their products, of real and of generated images."""

    def __init__(self, observer: ImageFeatures) -> None:
        self.observer = observer

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """rows int64; real, made float64 (D,); real_products, made_products float64 (D, D)."""
        counts = {"rows": batch.rows.new_full((), len(batch))}
        for name, images in (("real", batch.inputs["image"]), ("made", outputs)):
            features = self.observer(images)[0].double()
            counts |= {name: features.sum(dim=0), f"{name}_products": features.T @ features}
        return counts

    def score(self, total: dict[str, Tensor]) -> float | None:
        """The distance, 0 or more; None for fewer than two rows."""
        rows = int(total["rows"])
        if rows < 2:
            return None
        moments = [
            _moments(total[name].cpu().numpy(), total[f"{name}_products"].cpu().numpy(), rows)
            for name in ("real", "made")
        ]
        return frechet(*moments[0], *moments[1])


def _moments(sums: np.ndarray, products: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    mean = sums / rows
    return mean, (products - rows * np.outer(mean, mean)) / (rows - 1)


def frechet(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """The Frechet distance (squared 2-Wasserstein) between two normal distributions.

    The trace of (S S')^(1/2) is the sum of roots of the eigenvalues of S^(1/2) S' S^(1/2), which is
    symmetric: no complex numbers."""
    import numpy as np

    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other_covariance @ root).clip(min=0)).sum()
    distance = (
        np.square(mean - other_mean).sum()
        + np.trace(covariance)
        + np.trace(other_covariance)
        - 2 * shared
    )
    return max(float(distance), 0.0)


def build(config: Config, task: GeneratesImages) -> FrechetDistance:
    """The metric."""
    return FrechetDistance(ImageFeatures(config.classifier, task.image))
