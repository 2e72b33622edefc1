"""Generative adversarial network for images: a generator of convolutions (DCGAN) and the discriminator it is trained against.

The generator makes images of noise, and of a class where there is one; the discriminator tells them
from real ones, and both learn. It makes grey and RGB images of any size from 8x8 on: noise becomes
a small image (its shorter side of 4 to 7 pixels), which is doubled until it covers the size asked
for, and what stands over is cut off evenly. With a class, a learnt vector of it joins the noise,
and the discriminator judges whether an image fits it (projection).

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
    """The size of both sides."""

    latent: int = Field(64, ge=1, le=4096, description="Numbers of noise that an image is made of.")
    width: int = Field(
        64,
        ge=1,
        le=2048,
        description="Channels at half the image's size; twice as many each time it is halved.",
    )
    class_size: int = Field(
        32, ge=1, le=4096, description="Numbers that stand for a class beside the noise."
    )
    generator_normalization: Literal["batch", "spectral", "none"] = Field(
        "batch",
        description="What tames the generator: normalise activations over the batch, or the norm of each layer's weights.",
    )
    discriminator_normalization: Literal["batch", "spectral", "none"] = Field(
        "spectral", description="What tames the discriminator."
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where there is no image, one too small, or inputs it has no use
    for."""
    from danlu.layers.vision.dcgan import SMALLEST
    from danlu.parts.models._gan import AdversarialPair, Discriminator, Generator

    image, described = inputs.get("image"), inputs.get("class")
    if image is None or "row" not in inputs:
        raise PartError(
            "gan makes images, and this task gives it none to learn from.",
            hint="choose task: image_generation",
        )
    shape = image.shape
    if min(shape[1:]) < SMALLEST:
        raise PartError(
            f"gan makes images from {SMALLEST}x{SMALLEST} pixels on, and these have {shape[1]}x{shape[2]}."
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
