"""Dropout with masks that cost little on a CPU.

torch draws two numbers of a Mersenne twister for each entry of a mask: 64 microseconds for 64 x 128
entries, more than the matrix products of a small perceptron (torch 2.13, one core). Here one draw
of 64 bits decides four entries: 12 microseconds. The share that is dropped is therefore rounded to
a multiple of 1 / 65,536.

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
    """nn.Dropout whose masks on a CPU are those of `dropout_mask`; on other devices torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """In training, entries are set to 0 or divided by the share that stays; in evaluation the
        input itself."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or self.p == 1:
            return functional.dropout(input, self.p, True)
        return input * dropout_mask(input.shape, self.p, input.dtype)


def dropout_mask(
    shape: Sequence[int], share: float, dtype: torch.dtype, generator: torch.Generator | None = None
) -> Tensor:
    """A mask of `shape`: 0 where an entry is dropped (with probability `share`, 0 < share < 1), 1 /
    (1 - share) elsewhere. `generator` None: torch's CPU generator.

    >>> sorted(set(dropout_mask((1000,), 0.5, torch.float32).tolist()))
    [0.0, 2.0]
    """
    return dropout_masks(shape, (share,), dtype, (generator,))[0]


def dropout_masks(
    shape: Sequence[int],
    shares: Sequence[float],
    dtype: torch.dtype,
    generators: Sequence[torch.Generator | None],
) -> Tensor:
    """K masks (K, *shape), each with its own share (0 <= share < 1) and generator. A share of 0
    draws nothing: its mask is 1 everywhere."""
    count = math.prod(shape)
    drawn = torch.empty((len(shares), (count + 3) // 4), dtype=torch.int64)
    for row, share, generator in zip(drawn.unbind(0), shares, generators):
        if share:
            row.random_(-(1 << 63), None, generator=generator)
    stays = [min(max(round((1 - share) * _STEPS), 1), _STEPS - 1) for share in shares]
    limits = torch.tensor(stays, dtype=torch.int32).sub_(_STEPS // 2).to(torch.int16)
    kept = drawn.view(torch.int16)[:, :count] < limits.unsqueeze(1)
    result = kept.view(-1, *shape).to(dtype)
    result.mul_((_STEPS / torch.tensor(stays)).to(dtype).view(-1, *(1,) * len(shape)))
    for row, share in zip(result, shares):
        if not share:
            row.fill_(1.0)
    return result
