"""Networks over the patches of an image: Vision Transformer and MLP-Mixer.

B batch, C channels, H height, W width, T patches, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from danlu.layers.dropout import Dropout
from danlu.layers.normalization import normalization
from danlu.layers.transformer.blocks import Stack, StackSizes, init_weights
from danlu.layers.transformer.feed_forward import FeedForward
from danlu.layers.vision.patches import Patches, PatchPositions

Pooling = Literal["mean", "class_token"]


class VisionTransformer(nn.Module):
    """x_BCHW -> (B, D): patches with learnt positions through a Transformer; then their mean, or
    the class token.

    Images of another size than `shape` (C, H, W) are accepted: positions are interpolated.
    Source: Dosovitskiy et al., 2020, arXiv:2010.11929.
    """

    def __init__(
        self, shape: tuple[int, int, int], side: int, sizes: StackSizes, pooling: Pooling
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.patches = Patches(channels, side, sizes.width)
        self.positions = PatchPositions(self.patches.grid(height, width), sizes.width)
        self.token_D = (
            nn.Parameter(torch.randn(sizes.width) * 0.02) if pooling == "class_token" else None
        )
        self.stack = Stack(sizes, causal=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BTD = self.positions(self.patches(x_BCHW), self.patches.grid(*x_BCHW.shape[2:]))
        if self.token_D is None:
            return self.stack(x_BTD).mean(1)
        token_B1D = self.token_D.to(x_BTD.dtype).expand(x_BTD.shape[0], 1, -1)
        return self.stack(torch.cat([token_B1D, x_BTD], dim=1))[:, 0]


class MixerBlock(nn.Module):
    """x_BTD -> (B, T, D): x plus a network over the places of each feature, then plus a network
    over the features of each place."""

    def __init__(
        self, places: int, width: int, inner_places: int, inner_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.places_norm = normalization("layer", width, bias=True)
        self.places = FeedForward(places, "gelu", inner_places, bias=True)
        self.features_norm = normalization("layer", width, bias=True)
        self.features = FeedForward(width, "gelu", inner_width, bias=True)
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(
            self.places(self.places_norm(x_BTD).transpose(1, 2)).transpose(1, 2)
        )
        return x_BTD + self.dropout(self.features(self.features_norm(x_BTD)))


class Mixer(nn.Module):
    """x_BCHW -> (B, D): patches through blocks that mix places and features in turn; then their
    mean.

    Source: Tolstikhin et al., 2021, arXiv:2105.01601.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        side: int,
        width: int,
        num_layers: int,
        inner_places: int,
        inner_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        channels, height, wide = shape
        self.patches = Patches(channels, side, width)
        down, across = self.patches.grid(height, wide)
        places = down * across
        self.blocks = nn.Sequential(
            *(
                MixerBlock(places, width, inner_places, inner_width, dropout)
                for _ in range(num_layers)
            )
        )
        self.norm = normalization("layer", width, bias=True)
        init_weights(self.blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.blocks(self.patches(x_BCHW))).mean(1)
