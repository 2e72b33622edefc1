"""A generator of images and its discriminator, for images of at least 8x8 pixels.

B batch, C channels of the image, H height, W width, Z size of the noise, D features.
Sources: Radford, Metz and Chintala, 2016, arXiv:1511.06434 (convolutions); Miyato et al., 2018,
arXiv:1802.05957 (spectral normalisation); Miyato and Koyama, 2018, arXiv:1802.05637 (the class as a
projection in the discriminator)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from danlu.layers.vision.dcgan import ImageEncoder, ImageGenerator, Normalization, init_layer
from danlu.system.random_draws import counter_normal


class Generator(nn.Module):
    """(noise_BZ, class_B or None) -> images (B, C, H, W) between -1 and 1. An embedding of the
    class is concatenated to the noise."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int,
        width: int,
        classes: int,
        embedding: int,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.body = ImageGenerator(
            latent + (embedding if classes else 0), shape, width, normalization
        )

    def forward(self, noise_BZ: Tensor, class_B: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            noise_BZ = torch.cat([noise_BZ, self.embedding(class_B)], dim=1)
        return self.body(noise_BZ).tanh()


class Discriminator(nn.Module):
    """(images (B, C, H, W) between -1 and 1, class_B or None) -> logits (B,), large where an image
    looks real.

    With classes, the inner product of the image's features and the class's embedding is added.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, classes: int, normalization: Normalization
    ) -> None:
        super().__init__()
        self.body = ImageEncoder(shape, width, normalization)
        self.exit = init_layer(nn.Linear(self.body.features, 1), normalization)
        self.embedding = (
            init_layer(nn.Embedding(classes, self.body.features), normalization)
            if classes
            else None
        )

    def forward(self, images_BCHW: Tensor, class_B: Tensor | None = None) -> Tensor:
        features_BD = self.body(images_BCHW)
        logits_B = self.exit(features_BD)[:, 0]
        if self.embedding is not None:
            logits_B = logits_B + (self.embedding(class_B) * features_BD).sum(dim=1)
        return logits_B


class AdversarialPair(nn.Module):
    """inputs -> images float32 (B, C, H, W) on the scale of the normalised input image, from noise
    that is a function of the input "row".

    An adversarial update calls `draw`, `imagine` and `judge`; `generator` and `discriminator` hold
    the weights of each side. `mean` and `std` are those that input pixels are normalised with.
    """

    black: Tensor
    reach: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.latent = latent
        mean_C11, std_C11 = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self.register_buffer("black", -mean_C11 / std_C11, persistent=False)
        self.register_buffer(
            "reach", 0.5 / std_C11, persistent=False
        )  # half way from black to white

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.imagine(inputs, self.noise_of(inputs["row"].reshape(-1)))

    def noise_of(self, rows_B: Tensor) -> Tensor:
        """Noise (B, Z) that is a function of the row number only."""
        return counter_normal(0, rows_B[:, None], torch.arange(self.latent, device=rows_B.device))

    def draw(self, count: int) -> Tensor:
        """Noise for `count` images, (B, Z), from torch's own generator."""
        return torch.randn(count, self.latent, device=self.black.device)

    def imagine(self, inputs: Mapping[str, Tensor], noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W) of the classes in `inputs`."""
        return (
            self.generator(noise_BZ, _classes(inputs))
            .float()
            .add(1)
            .mul(self.reach)
            .add(self.black)
        )

    def judge(self, images_BCHW: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The discriminator's logits (B,) of images, given the classes in `inputs`."""
        return self.discriminator((images_BCHW - self.black) / self.reach - 1, _classes(inputs))


def _classes(inputs: Mapping[str, Tensor]) -> Tensor | None:
    return inputs["class"].reshape(-1) if "class" in inputs else None
