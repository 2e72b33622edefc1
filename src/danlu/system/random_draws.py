"""Random draws for whole batches: with a generator, or as functions of a seed and counters.

B rows of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(generator: torch.Generator, *shape: int, like: Tensor) -> Tensor:
    """Uniform random numbers of [0, 1), float32, of a shape, on the device of `like`."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def normal_like(generator: torch.Generator, like: Tensor) -> Tensor:
    """Random numbers of the standard normal distribution, with the shape, dtype and device of
    `like`."""
    drawn = torch.randn(
        like.shape, generator=generator, device=generator.device, dtype=torch.float32
    )
    return drawn.to(like.device, like.dtype)


def chosen_rows(generator: torch.Generator, probability: float, like: Tensor) -> Tensor:
    """Which rows of `like` are chosen, bool (B,): each with this probability, independently."""
    return uniform(generator, len(like), like=like) < probability


def symmetric_beta(alpha: float, points: int = 2048) -> Tensor:
    """Quantiles of the distribution Beta(alpha, alpha), float32 (points + 1,), at 0, 1/points, ...,
    1.

    `draw_from_quantiles` draws from this table: torch's own Beta takes no generator.

    >>> symmetric_beta(1.0, points=4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    import numpy as np
    from scipy.special import betaincinv

    return torch.from_numpy(
        betaincinv(alpha, alpha, np.linspace(0.0, 1.0, points + 1)).astype(np.float32)
    )


def draw_from_quantiles(quantiles: Tensor, uniform_B: Tensor) -> Tensor:
    """Turn uniform numbers of [0, 1), float32 (B,), into draws of the distribution with these
    quantiles, which is interpolated linearly.

    Method: inversion of the distribution function."""
    quantiles = quantiles.to(uniform_B.device)
    position = uniform_B * (len(quantiles) - 1)
    below = position.long().clamp_(max=len(quantiles) - 2)
    return torch.lerp(quantiles[below], quantiles[below + 1], position - below)


_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_GOLDEN = 0x9E3779B97F4A7C15


def counter_bits(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """64 random bits per element, int64 of the counters' common shape: a function of `seed` and the
    counters alone.

    There is no generator, so the order of draws does not matter: row 5, token 3 gets the same bits
    in whichever batch row 5 comes, and on every device.
    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once for each
    counter.

    >>> counter_bits(0, torch.arange(2)).tolist()
    [-2152535657050944081, -7995527694508729151]
    """
    bits: Tensor | int = seed
    for counter in counters:
        bits = counter.to(torch.int64) + bits + _signed(_GOLDEN)
        for shift, factor in _MIX:
            # the mask makes the shift bring in zeros instead of the sign
            bits = bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))
            bits = bits * _signed(factor)
    assert isinstance(bits, Tensor)
    return bits


def counter_uniform(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """Uniform random numbers of [0, 1), float64, made of `counter_bits`."""
    return (counter_bits(seed, *counters) >> 11 & ((1 << 53) - 1)).double() * 2.0**-53


def counter_normal(seed: int, *counters: Tensor) -> Tensor:
    """Numbers of the standard normal distribution, float32, made of `counter_uniform`.

    Source: Box and Muller, 1958.
    """
    length, angle = (
        counter_uniform(seed, *counters, counters[-1].new_tensor(number)) for number in (0, 1)
    )
    return ((-2 * torch.log1p(-length)).sqrt() * (2 * torch.pi * angle).cos()).float()


def _signed(value: int) -> int:
    """The int64 that has the bits of an unsigned number."""
    return value - (1 << 64) if value >= 1 << 63 else value
