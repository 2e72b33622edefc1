"""Residual blocks of convolutional networks: convolutions and a shortcut around them.

B batch, C channels in, D channels out, H height, W width; h and w after a stride.
Sources: He et al., 2015, arXiv:1512.03385 (the block); He et al., 2016, arXiv:1603.05027 (norm and
activation first); He et al., 2018, arXiv:1812.01187 (pooling before the 1x1 convolution of the
shortcut, so that no pixel is skipped).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.layers.activations import Activation, activation, init_linear
from danlu.layers.dropout import Dropout
from danlu.layers.normalization import BatchNorm2d
from danlu.layers.parametrization import ResidualBranch


def convolution(
    channels: int, width: int, size: int, *, stride: int, bias: bool, activation_name: Activation
) -> nn.Conv2d:
    """A convolution padded to keep height and width, divided by its stride."""
    layer = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=bias)
    init_linear(layer, activation_name)
    return layer


class ResidualBlock(ResidualBranch):
    """x_BCHW -> (B, D, h, w): activation(shortcut + convolution(activation(convolution(x)))); h is
    H / stride, rounded up.

    With `batch_norm` each convolution is followed by batch normalization. Without it the weights of
    the second one start at `scale` times their usual size, so that outputs do not grow with depth.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        stride: int,
        batch_norm: bool,
        activation_name: Activation,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        first = convolution(
            channels, width, 3, stride=stride, bias=not batch_norm, activation_name=activation_name
        )
        second = convolution(
            width, width, 3, stride=1, bias=not batch_norm, activation_name=activation_name
        )
        if batch_norm:
            self.body = nn.Sequential(
                first, BatchNorm2d(width), activation(activation_name), second, BatchNorm2d(width)
            )
        else:
            with torch.no_grad():
                second.weight.mul_(scale)
            self.body = nn.Sequential(first, activation(activation_name), second)
        self.around = _around(
            channels, width, stride=stride, batch_norm=batch_norm, activation_name=activation_name
        )
        self.activation = activation(activation_name)
        self.branch = 1.0  # a factor of what the convolutions add

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BDhw = self.body(x_BCHW)
        if self.branch != 1.0:
            y_BDhw = y_BDhw * self.branch
        y_BDhw = y_BDhw + (x_BCHW if self.around is None else self.around(x_BCHW))
        return self.activation(y_BDhw)


class BottleneckBlock(nn.Module):
    """x_BCHW -> (B, D, h, w): as ResidualBlock with batch normalization, of a 1x1 convolution to D
    / 4 channels, a 3x3 one with the stride, and a 1x1 one to D."""

    def __init__(
        self, channels: int, width: int, *, stride: int, activation_name: Activation
    ) -> None:
        super().__init__()
        narrow = width // 4
        self.body = nn.Sequential(
            convolution(channels, narrow, 1, stride=1, bias=False, activation_name=activation_name),
            BatchNorm2d(narrow),
            activation(activation_name),
            convolution(
                narrow, narrow, 3, stride=stride, bias=False, activation_name=activation_name
            ),
            BatchNorm2d(narrow),
            activation(activation_name),
            convolution(narrow, width, 1, stride=1, bias=False, activation_name=activation_name),
            BatchNorm2d(width),
        )
        self.around = _around(
            channels, width, stride=stride, batch_norm=True, activation_name=activation_name
        )
        self.activation = activation(activation_name)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BDhw = self.body(x_BCHW)
        y_BDhw = y_BDhw + (x_BCHW if self.around is None else self.around(x_BCHW))
        return self.activation(y_BDhw)


def init_near_identity(network: nn.Module) -> None:
    """Set the scale of the last norm of every block to 0.1, in place, so that a deep stack starts
    close to its shortcuts.

    At 0, as in Goyal et al., 2017, arXiv:1706.02677, no weight of a body would have a gradient in
    the first update.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock | BottleneckBlock):
            last = block.body[-1]
            if isinstance(last, BatchNorm2d):
                nn.init.constant_(last.weight, 0.1)


class PreActivationBlock(nn.Module):
    """x_BCHW -> (B, D, h, w): shortcut + convolution(dropout(convolution(x))), each convolution of
    activation(norm(its input)).

    There is no layer between the sum of one block and that of the next. Where the shape changes,
    the shortcut starts from the activated input. Source of the dropout: Zagoruyko and Komodakis,
    2016, arXiv:1605.07146.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        stride: int,
        activation_name: Activation,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(BatchNorm2d(channels), activation(activation_name))
        layers: list[nn.Module] = [
            convolution(
                channels, width, 3, stride=stride, bias=False, activation_name=activation_name
            ),
            BatchNorm2d(width),
            activation(activation_name),
        ]
        if dropout:
            layers.append(Dropout(dropout))
        layers.append(
            convolution(width, width, 3, stride=1, bias=False, activation_name=activation_name)
        )
        self.body = nn.Sequential(*layers)
        self.around = pooled_convolution(
            channels, width, stride=stride, activation_name=activation_name
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active_BCHW = self.first(x_BCHW)
        return self.body(active_BCHW) + (
            x_BCHW if self.around is None else self.around(active_BCHW)
        )


def pooled_convolution(
    channels: int, width: int, *, stride: int, activation_name: Activation, bias: bool = False
) -> nn.Sequential | None:
    """The shortcut from (B, C, H, W) to (B, D, h, w): the mean over `stride` pixels, then a 1x1
    convolution; None where the shape does not change."""
    if channels == width and stride == 1:
        return None
    layers: list[nn.Module] = []
    if stride > 1:
        layers.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
    layers.append(
        convolution(channels, width, 1, stride=1, bias=bias, activation_name=activation_name)
    )
    return nn.Sequential(*layers)


def _around(
    channels: int, width: int, *, stride: int, batch_norm: bool, activation_name: Activation
) -> nn.Module | None:
    layers = pooled_convolution(
        channels, width, stride=stride, activation_name=activation_name, bias=not batch_norm
    )
    if layers is not None and batch_norm:
        layers.append(BatchNorm2d(width))
    return layers
