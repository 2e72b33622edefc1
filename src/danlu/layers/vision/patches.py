"""An image as a sequence of patches.

B batch, C channels, H height, W width, P side of a patch, T patches (row by row), D width of a
patch's vector.
Source: Dosovitskiy et al., 2020, arXiv:2010.11929.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST_AUTO = 16


def patch_side(height: int, width: int) -> int:
    """The default side of a patch: the power of two nearest to an eighth of the shorter side, from
    2 to 16.

    >>> patch_side(28, 28), patch_side(224, 224)
    (4, 16)
    """
    wanted = min(height, width) / 8
    sides = [2, 4, 8, LARGEST_AUTO]
    return min(sides, key=lambda side: abs(side - wanted))


class Patches(nn.Module):
    """x_BCHW -> (B, T, D): each patch through one linear map. Patches at the right and lower edge
    are padded with 0, the mean pixel."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.linear = nn.Linear(channels * side * side, width)
        nn.init.normal_(self.linear.weight, std=self.linear.in_features**-0.5)
        nn.init.zeros_(self.linear.bias)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(patches from top to bottom, patches from left to right)."""
        return -(-height // self.side), -(-width // self.side)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        down, across = self.grid(*x_BCHW.shape[2:])
        below, beside = down * self.side - x_BCHW.shape[2], across * self.side - x_BCHW.shape[3]
        if below or beside:
            x_BCHW = functional.pad(x_BCHW, (0, beside, 0, below))
        # by reshaping: a convolution of stride P gives the same and is slower on a CPU
        x_BCtPuP = x_BCHW.unflatten(2, (down, self.side)).unflatten(4, (across, self.side))
        x_BTX = x_BCtPuP.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return self.linear(x_BTX)


class PatchPositions(nn.Module):
    """x_BTD -> x_BTD plus a learnt vector for each place of the grid; for another grid than the one
    it was built for, the vectors are interpolated."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.positions_DHW = nn.Parameter(torch.randn(width, *grid) * 0.02)

    def forward(self, x_BTD: Tensor, grid: tuple[int, int]) -> Tensor:
        positions_DHW: Tensor = self.positions_DHW
        if positions_DHW.shape[1:] != grid:
            positions_DHW = functional.interpolate(
                positions_DHW[None], grid, mode="bilinear", align_corners=False
            )[0]
        return x_BTD + positions_DHW.flatten(1).t()
