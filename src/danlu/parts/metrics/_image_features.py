"""Features of images, which metrics of generated images compare: a classifier's, or small greys.

Features are float32 (N, D). The classifier is the artifact of another run; the evaluation hands it
over (`ImageFeatures.use_classifier`), since metrics cannot read artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from danlu.errors import ArtifactError
from danlu.terms import InputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.parts.metrics._penultimate import PenultimateLayer

SIDE = 8  # of the small image that gives the features where there is no classifier


class ImageFeatures:
    """features(images) of images (N, C, H, W) on the scale of `image`, the normalised input of a
    task.

    classifier   the path of an artifact, whose last layer's inputs are the features; None: the
                 features are the shades of the image, averaged to at most 8x8
    """

    def __init__(self, classifier: str | None, image: InputSpec) -> None:
        self.classifier = classifier
        self.image = image
        self.names: tuple[str, ...] = ()
        self._penultimate: PenultimateLayer | None = None
        self._own: InputSpec | None = None

    def use_classifier(
        self, module: nn.Module, inputs: Mapping[str, InputSpec], names: Sequence[str]
    ) -> None:
        """Take the features from a classifier: its module, its inputs, the names of its classes.
        ArtifactError where its input is another than these images."""
        from danlu.parts.metrics._penultimate import PenultimateLayer

        own = inputs.get("image")
        if own is None or set(inputs) != {"image"} or own.shape != self.image.shape:
            there = (
                "other inputs than one image"
                if own is None or len(inputs) > 1
                else "x".join(map(str, own.shape))
            )
            raise ArtifactError(
                f"this classifier takes {there}, and the images are "
                f"{'x'.join(map(str, self.image.shape))} (channels, height, width).",
                where=str(self.classifier),
                hint="train one on the same images",
            )
        self._own, self._penultimate, self.names = own, PenultimateLayer(module), tuple(names)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D), the classifier's outputs (N, K) or None) of images (N, C, H, W)."""
        if self._own is None or self._penultimate is None:
            return _small(_shades(images, self.image)), None
        self._penultimate.module.to(images.device)
        try:
            return self._penultimate({"image": _on_scale(_shades(images, self.image), self._own)})
        except ValueError as error:
            raise ArtifactError(
                f"this classifier has no features to compare: {error}.", where=str(self.classifier)
            ) from None


def _shades(images: Tensor, image: InputSpec) -> Tensor:
    """Images from 0 to 1, rounded to the 256 shades of an 8-bit channel."""
    mean, std = _channels(image.mean, images), _channels(image.std, images)
    return ((images.float() * std + mean).clamp(0, 1) * 255).round() / 255


def _on_scale(shades: Tensor, image: InputSpec) -> Tensor:
    return (shades - _channels(image.mean, shades)) / _channels(image.std, shades)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).reshape(-1, 1, 1)


def _small(shades: Tensor) -> Tensor:
    from torch.nn.functional import adaptive_avg_pool2d

    height, width = shades.shape[2:]
    return adaptive_avg_pool2d(shades, (min(SIDE, height), min(SIDE, width))).flatten(1)
