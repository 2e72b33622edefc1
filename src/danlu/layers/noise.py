"""Noise that is a pure function of numbers, so that what is made of it does not hang on how rows are cut into batches.

B batch, Z numbers of noise a row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def mixed(numbers: Tensor) -> Tensor:
    """int64 of any shape -> int64 whose bits are well mixed: neighbours share none.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014); int64 wraps around as uint64 does.
    """
    x = numbers + _GOLDEN
    x = (x ^ ((x >> 30) & (1 << 34) - 1)) * _FIRST  # int64 shifts drag the sign along, which the mask takes off
    x = (x ^ ((x >> 27) & (1 << 37) - 1)) * _SECOND
    return x ^ ((x >> 31) & (1 << 33) - 1)


def normal_of(ids_B: Tensor, width: int) -> Tensor:
    """Numbers of the standard normal distribution, float32 (B, width): row b a function of ids_B[b] (int64) alone.

    Source: Box and Muller, 1958.
    """
    half = (width + 1) // 2
    place = torch.arange(2 * half, device=ids_B.device)
    bits_BZ = mixed(mixed(ids_B)[:, None] + place)
    uniform_BZ = (((bits_BZ >> 11) & (1 << 53) - 1).double() + 0.5) * 2.0**-53
    radius, angle = uniform_BZ.split(half, dim=1)
    radius, angle = (-2 * radius.log()).sqrt(), 2 * math.pi * angle
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :width].float()
