"""The residual block of convolutional networks: two 3x3 convolutions and a way around them.

B batch, C channels in, D channels out, H height, W width; h and w after a stride.
Sources: He et al., 2015, arXiv:1512.03385 (the block); He et al., 2018, arXiv:1812.01187 (pooling before the 1x1 convolution of
the way around, so that no pixel is skipped).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.layers.activations import Activation, activation, start_linear
from danlu.layers.normalization import BatchNorm2d


def convolution(channels: int, width: int, size: int, *, stride: int, bias: bool, activation_name: Activation) -> nn.Conv2d:
    """A convolution that keeps height and width but for its stride."""
    layer = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=bias)
    start_linear(layer, activation_name)
    return layer


class ResidualBlock(nn.Module):
    """x_BCHW -> (B, D, h, w): activation(way around + convolution(activation(convolution(x)))); h is H / stride, rounded up.

    Each convolution is followed by batch normalization. Without it the second one starts at `scale` times its usual size, so that a
    deep stack starts tame.
    """

    def __init__(
        self, channels: int, width: int, *, stride: int, batch_norm: bool, activation_name: Activation, scale: float = 1.0
    ) -> None:
        super().__init__()
        first = convolution(channels, width, 3, stride=stride, bias=not batch_norm, activation_name=activation_name)
        second = convolution(width, width, 3, stride=1, bias=not batch_norm, activation_name=activation_name)
        if batch_norm:
            self.body = nn.Sequential(first, BatchNorm2d(width), activation(activation_name), second, BatchNorm2d(width))
        else:
            with torch.no_grad():
                second.weight.mul_(scale)
            self.body = nn.Sequential(first, activation(activation_name), second)
        self.around = _around(channels, width, stride=stride, batch_norm=batch_norm, activation_name=activation_name)
        self.activation = activation(activation_name)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BDhw = self.body(x_BCHW)
        y_BDhw = y_BDhw + (x_BCHW if self.around is None else self.around(x_BCHW))
        return self.activation(y_BDhw)


def _around(channels: int, width: int, *, stride: int, batch_norm: bool, activation_name: Activation) -> nn.Module | None:
    if channels == width and stride == 1:
        return None
    layers: list[nn.Module] = []
    if stride > 1:
        layers.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
    layers.append(convolution(channels, width, 1, stride=1, bias=not batch_norm, activation_name=activation_name))
    if batch_norm:
        layers.append(BatchNorm2d(width))
    return nn.Sequential(*layers)
