"""A generator of images and the discriminator it is trained against, for images of any size from 8x8 on.

B batch, C channels of the image, H height, W width, Z numbers of noise, K classes, E size of a class's embedding, D features.

A side is halved n times, n the largest with min(H, W) / 2^n >= 4, rounded up each time. The generator begins there and doubles n times;
what stands over H x W is cut off evenly, so every size is made exactly.
Sources: Radford, Metz and Chintala, 2016, arXiv:1511.06434 (convolutions, starting weights); Miyato et al., 2018, arXiv:1802.05957
(spectral normalisation); Miyato and Koyama, 2018, arXiv:1802.05637 (the class as a projection in the discriminator).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from danlu.layers.images import ChannelsLast
from danlu.layers.noise import normal_of
from danlu.layers.normalization import BatchNorm2d

Normalization = Literal["batch", "spectral", "none"]
SMALLEST = 8  # pixels of the shorter side
_START = 4  # pixels of the shorter side where the generator begins, at least
_SPREAD = 0.02  # standard deviation of the first weights
_SLOPE = 0.2  # of the leaky ReLU


def halvings(height: int, width: int) -> int:
    """How often a side is halved: until the shorter one would be under 4 pixels."""
    count = 0
    while min(height, width) // 2 ** (count + 1) >= _START:
        count += 1
    return count


def channels_of(width: int, count: int) -> list[int]:
    """Channels after each of `count` halvings: `width`, then twice as many each time, at most eight times."""
    return [width * min(2**number, 8) for number in range(count)]


class Generator(nn.Module):
    """(noise_BZ, class_B or None) -> images (B, C, H, W) between -1 and 1. The class joins the noise as a learnt vector of E numbers."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, width: int, classes: int, embedding: int, normalization: Normalization
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        count = halvings(self.height, self.width)
        wide = channels_of(width, count)[::-1]
        self.start = wide[0], -(-self.height // 2**count), -(-self.width // 2**count)
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.entry = _made(
            nn.Linear(latent + (embedding if classes else 0), wide[0] * self.start[1] * self.start[2]), normalization
        )
        layers: list[nn.Module] = [ChannelsLast(), *_after(wide[0], normalization), nn.ReLU(inplace=True)]
        for before, after in itertools.pairwise(wide):
            double = _made(nn.ConvTranspose2d(before, after, 4, 2, 1), normalization)
            layers += [double, *_after(after, normalization), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, _made(nn.ConvTranspose2d(wide[-1], channels, 4, 2, 1), normalization), nn.Tanh())

    def forward(self, noise_BZ: Tensor, class_B: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            noise_BZ = torch.cat([noise_BZ, self.embedding(class_B)], dim=1)
        x_BCHW = self.body(self.entry(noise_BZ).reshape(-1, *self.start))
        top, left = (x_BCHW.shape[2] - self.height) // 2, (x_BCHW.shape[3] - self.width) // 2
        return x_BCHW[:, :, top : top + self.height, left : left + self.width]


class Discriminator(nn.Module):
    """(images (B, C, H, W) between -1 and 1, class_B or None) -> logits (B,), large where an image looks real.

    With classes the logit is that of the image alone plus the inner product of its features with a learnt vector of the class.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, classes: int, normalization: Normalization) -> None:
        super().__init__()
        channels, height, width_of_image = shape
        wide = channels_of(width, halvings(height, width_of_image))
        layers: list[nn.Module] = [ChannelsLast()]
        for number, (before, after) in enumerate(zip([channels, *wide[:-1]], wide, strict=True)):
            layers.append(_made(nn.Conv2d(before, after, 4, 2, 1), normalization))
            if number:  # the first layer must see how bright an image is
                layers += _after(after, normalization)
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
            height, width_of_image = height // 2, width_of_image // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        features = wide[-1] * height * width_of_image
        self.exit = _made(nn.Linear(features, 1), normalization)
        self.embedding = _made(nn.Embedding(classes, features), normalization) if classes else None

    def forward(self, images_BCHW: Tensor, class_B: Tensor | None = None) -> Tensor:
        features_BD = self.body(images_BCHW)
        logits_B = self.exit(features_BD)[:, 0]
        if self.embedding is not None:
            logits_B = logits_B + (self.embedding(class_B) * features_BD).sum(dim=1)
        return logits_B


class AdversarialPair(nn.Module):
    """inputs -> images float32 (B, C, H, W) on the scale of the normalised input image, from noise that the input "row" decides.

    What an adversarial update calls: `draw`, `imagine` and `judge`; `generator` and `discriminator` hold the weights of each side.
    `mean` and `std` are those that pixels of the input are normalised with.
    """

    black: Tensor
    reach: Tensor

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, latent: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.latent = latent
        mean_C11, std_C11 = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self.register_buffer("black", -mean_C11 / std_C11, persistent=False)  # black
        self.register_buffer("reach", 0.5 / std_C11, persistent=False)  # half way from black to white

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.imagine(inputs, normal_of(inputs["row"].reshape(-1), self.latent))

    def draw(self, count: int) -> Tensor:
        """Noise for `count` images, (B, Z), from torch's own generator."""
        return torch.randn(count, self.latent, device=self.black.device)

    def imagine(self, inputs: Mapping[str, Tensor], noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W) of the classes in `inputs`."""
        return self.generator(noise_BZ, _classes(inputs)).float().add(1).mul(self.reach).add(self.black)

    def judge(self, images_BCHW: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The discriminator's logits (B,) of images that are said to be of the classes in `inputs`."""
        return self.discriminator((images_BCHW - self.black) / self.reach - 1, _classes(inputs))


def _classes(inputs: Mapping[str, Tensor]) -> Tensor | None:
    return inputs["class"].reshape(-1) if "class" in inputs else None


def _made(layer: nn.Module, normalization: Normalization) -> nn.Module:
    """The layer with its first weights, spectrally normalised where asked."""
    assert isinstance(layer.weight, Tensor)
    nn.init.normal_(layer.weight, 0.0, _SPREAD)
    if isinstance(getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return spectral_norm(layer) if normalization == "spectral" else layer


def _after(channels: int, normalization: Normalization) -> list[nn.Module]:
    return [BatchNorm2d(channels)] if normalization == "batch" else []
