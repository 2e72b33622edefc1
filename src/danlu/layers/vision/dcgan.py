"""DCGAN: an image encoder that halves images, and a generator that doubles them, from 8x8 on.

B batch, C channels of the image, H height, W width, D features, Z numbers that an image is made of.

A side is halved n times, n the largest with min(H, W) / 2^n >= 4, each time rounded down. An image
is generated from 1 / 2^n of its size, rounded up, doubled n times; what exceeds H x W is cropped
evenly, so that every size is made exactly.
Source: Radford, Metz and Chintala, 2016, arXiv:1511.06434 (the sizes of kernels and strides, the
first weights).
"""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from danlu.layers.normalization import BatchNorm2d
from danlu.layers.vision.pooling import ChannelsLast

Normalization = Literal["batch", "spectral", "none"]
SMALLEST = 8  # pixels of the shorter side
_START = 4  # pixels of the shorter side of the smallest image, at least
_SPREAD = 0.02  # standard deviation of the first weights
_SLOPE = 0.2  # of the leaky ReLU


def halvings(height: int, width: int) -> int:
    """How often the sides are halved: as long as the shorter one keeps at least 4 pixels.

    >>> halvings(28, 28), halvings(64, 32)
    (2, 3)
    """
    count = 0
    while min(height, width) // 2 ** (count + 1) >= _START:
        count += 1
    return count


def channels_of(width: int, count: int) -> list[int]:
    """Channels after each of `count` halvings: `width`, doubled each time up to 8 * `width`.

    >>> channels_of(16, 5)
    [16, 32, 64, 128, 128]
    """
    return [width * min(2**number, 8) for number in range(count)]


class ImageEncoder(nn.Module):
    """images (B, C, H, W) -> (B, features): for each halving a 4x4 convolution, the normalisation
    (not after the first) and a leaky ReLU."""

    def __init__(
        self, shape: tuple[int, int, int], width: int, normalization: Normalization
    ) -> None:
        super().__init__()
        channels, height, across = shape
        wide = channels_of(width, halvings(height, across))
        layers: list[nn.Module] = [ChannelsLast()]
        for number, (before, after) in enumerate(itertools.pairwise([channels, *wide])):
            layers.append(init_layer(nn.Conv2d(before, after, 4, 2, 1), normalization))
            if number:  # the first layer must keep the brightness of an image
                layers += _after(after, normalization)
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
            height, across = height // 2, across // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.features = wide[-1] * height * across

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.body(images_BCHW)


class ImageGenerator(nn.Module):
    """(B, Z) -> images (B, C, H, W): a linear layer to the smallest image, then transposed 4x4
    convolutions with ReLU between them."""

    def __init__(
        self, entry: int, shape: tuple[int, int, int], width: int, normalization: Normalization
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        count = halvings(self.height, self.width)
        wide = channels_of(width, count)[::-1]
        self.start = wide[0], -(-self.height // 2**count), -(-self.width // 2**count)
        self.entry = init_layer(
            nn.Linear(entry, wide[0] * self.start[1] * self.start[2]), normalization
        )
        layers: list[nn.Module] = [
            ChannelsLast(),
            *_after(wide[0], normalization),
            nn.ReLU(inplace=True),
        ]
        for before, after in itertools.pairwise(wide):
            double = init_layer(nn.ConvTranspose2d(before, after, 4, 2, 1), normalization)
            layers += [double, *_after(after, normalization), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(
            *layers, init_layer(nn.ConvTranspose2d(wide[-1], channels, 4, 2, 1), normalization)
        )

    def forward(self, x_BZ: Tensor) -> Tensor:
        x_BCHW = self.body(self.entry(x_BZ).reshape(-1, *self.start))
        top, left = (x_BCHW.shape[2] - self.height) // 2, (x_BCHW.shape[3] - self.width) // 2
        return x_BCHW[:, :, top : top + self.height, left : left + self.width]


def init_layer(
    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding, normalization: Normalization
) -> nn.Module:
    """The layer with DCGAN's first weights, spectrally normalised where `normalization` says so."""
    nn.init.normal_(layer.weight, 0.0, _SPREAD)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer) if normalization == "spectral" else layer


def _after(channels: int, normalization: Normalization) -> list[nn.Module]:
    return [BatchNorm2d(channels)] if normalization == "batch" else []
