"""An encoder to a small code and a decoder back.

B batch, S size of a row (F numbers, or C x H x W), Z size of the code, L time steps of a window.
Sources: Hinton and Salakhutdinov, 2006, doi.org/10.1126/science.1127647; Vincent et al., 2008
(denoising)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from danlu.layers.activations import Activation, activation, init_linear
from danlu.layers.vision.dcgan import ImageEncoder, ImageGenerator


class Autoencoder(nn.Module):
    """inputs -> the reconstruction of the input called `name`, float32 (B, S)."""

    def __init__(self, name: str, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.decoder(self.encode(inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The codes (B, Z)."""
        return self.encoder(inputs[self.name])


class WindowAutoencoder(Autoencoder):
    """inputs -> the reconstructed window of a series, float32 (B, L, variables); the input may hold
    more variables."""

    def __init__(self, name: str, encoder: nn.Module, decoder: nn.Module, moments: int) -> None:
        super().__init__(name, encoder, decoder)
        self.moments = moments

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().forward(inputs).unflatten(1, (self.moments, -1))

    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.encoder(inputs[self.name].flatten(1))


def of_numbers(
    features: int, hidden: Sequence[int], code: int, activation_name: Activation
) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) of numbers: dense layers of the sizes `hidden`, in the decoder
    reversed."""
    return _dense([features, *hidden, code], activation_name), _dense(
        [code, *reversed(hidden), features], activation_name
    )


def of_images(shape: tuple[int, int, int], width: int, code: int) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) of images: convolutions that halve them, a linear layer to the code; in
    the decoder reversed."""
    halve = ImageEncoder(shape, width, "batch")
    return nn.Sequential(halve, nn.Linear(halve.features, code)), ImageGenerator(
        code, shape, width, "batch"
    )


def _dense(sizes: Sequence[int], activation_name: Activation) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        linear = nn.Linear(before, after)
        init_linear(linear, activation_name)
        layers += [linear, activation(activation_name)]
    return nn.Sequential(*layers[:-1])
