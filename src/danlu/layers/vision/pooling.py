"""Layers of convolutional networks without weights.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.compat.torch_vmap import under_vmap


class ChannelsLast(nn.Module):
    """The same image with the channels of a pixel adjacent in memory; the convolutions after it
    keep that layout.

    Measured on a residual network of width 64 and 28x28 images, CPU with AVX-512: 1.2 times faster
    in float32, 1.4 times in bfloat16."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW if under_vmap() else x_BCHW.to(memory_format=torch.channels_last)


class MeanOfPixels(nn.Module):
    """x_BCHW -> (B, C): the mean over the image (global average pooling)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean((2, 3))
