"""Convolutions over the frames of recordings that ignore what follows a row's end.

B batch, T frames, F bands, C channels; t and f after a pooling or stride by two, rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.normalization import BatchNorm2d
from danlu.layers.pooling import real_places


def halved(lengths_B: Tensor) -> Tensor:
    """The lengths after a pooling or stride by two, rounded up.

    >>> halved(torch.tensor([3, 4])).tolist()
    [2, 2]
    """
    return (lengths_B + 1) // 2


class FrameBlock(nn.Module):
    """(x_BCTF, lengths_B) -> (B, D, t, f) and its lengths: twice a 3x3 convolution, batch
    normalization and ReLU; then pooling by two.

    After every convolution the frames behind a row's end are set to 0 again, else the next
    convolution would carry the bias from there into the row.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.first_norm = BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = BatchNorm2d(width)

    def forward(self, x_BCTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        there = real_places(lengths_B, x_BCTF.shape[2])[:, None, :, None]
        x = functional.relu(self.first_norm(self.first(x_BCTF))) * there
        x = functional.relu(self.second_norm(self.second(x))) * there
        # values are 0 or more, so the zeros behind a row's end change no maximum
        return functional.max_pool2d(x, 2, ceil_mode=True), halved(lengths_B)


class RecordingVector(nn.Module):
    """{name: x_BTF, name_lengths: (B,)} -> (B, 2 D): blocks of convolutions, then the mean and the
    maximum over the frames."""

    def __init__(self, name: str, bands: int, widths: list[int]) -> None:
        super().__init__()
        self.name = name
        channels = [1, *widths]
        self.blocks = nn.ModuleList(
            FrameBlock(before, after) for before, after in zip(channels, widths)
        )
        self.width = 2 * widths[-1]

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x = inputs[self.name][:, None]
        lengths_B = inputs[f"{self.name}_lengths"].clamp(min=1)
        if x.shape[2] == 0:
            x = functional.pad(x, (0, 0, 0, 1))
        for block in self.blocks:
            x, lengths_B = block(x, lengths_B)
        x_BDT = x.mean(dim=3)
        there_BT = real_places(lengths_B, x_BDT.shape[2])[:, None]
        mean_BD = (x_BDT * there_BT).sum(dim=2) / lengths_B[:, None]
        return torch.cat([mean_BD, (x_BDT * there_BT).amax(dim=2)], dim=1)
