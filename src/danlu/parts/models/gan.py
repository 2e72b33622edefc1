"""Generative adversarial network for images: a convolutional generator and discriminator (DCGAN).

The generator makes images from noise, and from a class where there is one; the discriminator is
trained to distinguish them from real images, and the generator to deceive it. Images are grey or
RGB, of at least 8x8 pixels: noise becomes a small image (4 to 7 pixels on its shorter side), which
is doubled until it covers the size, and what exceeds it is cut off evenly. An embedding of the
class is concatenated to the noise, and the discriminator judges whether an image fits it
(projection).

Sources: Goodfellow et al., 2014, arXiv:1406.2661; Radford, Metz and Chintala, 2016,
arXiv:1511.06434; Miyato et al., 2018, arXiv:1802.05957 (spectral normalisation); Miyato and Koyama,
2018, arXiv:1802.05637 (projection)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("image", "categories")
GIVES = ("image",)
DEFAULTS = {
    "optimizer": {"name": "adam", "learning_rate": 0.0005, "beta1": 0.5},
    "regularization.ema_decay": 0.999,
    "train.batch_size": 64,
}


class Config(Options):
    """The size of generator and discriminator."""

    latent: int = Field(64, ge=1, le=4096, description="Size of the noise vector.")
    width: int = Field(
        64,
        ge=1,
        le=2048,
        description="Channels at half the image's size; doubled at each further halving.",
    )
    class_size: int = Field(32, ge=1, le=4096, description="Size of the embedding of a class.")
    generator_normalization: Literal["batch", "spectral", "none"] = Field(
        "batch",
        description="Normalization of the generator: batch (activations) or spectral (weights).",
    )
    discriminator_normalization: Literal["batch", "spectral", "none"] = Field(
        "spectral", description="Normalization of the discriminator."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError where there is no image, one too small, or an input beside image and
    class."""
    from danlu.layers.vision.dcgan import SMALLEST
    from danlu.parts.models._gan import AdversarialPair, Discriminator, Generator

    image, described = inputs.get("image"), inputs.get("class")
    if image is None or "row" not in inputs:
        raise PartError(
            "gan generates images, and this task has none to learn from.",
            hint="choose task: image_generation",
        )
    shape = image.shape
    if min(shape[1:]) < SMALLEST:
        raise PartError(
            f"gan makes images from {SMALLEST}x{SMALLEST} pixels on, and these have "
            f"{shape[1]}x{shape[2]}."
        )
    classes = described.cardinalities[0] if described is not None else 0
    channels, height, width = shape
    size = channels, height, width
    generator = Generator(
        size,
        config.latent,
        config.width,
        classes,
        config.class_size,
        config.generator_normalization,
    )
    discriminator = Discriminator(size, config.width, classes, config.discriminator_normalization)
    return AdversarialPair(generator, discriminator, config.latent, image.mean, image.std)
