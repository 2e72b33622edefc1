"""Random draws for whole batches, and what augmentations share.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from danlu.errors import PartError
from danlu.terms import Batch, InputSpec, OutputSpec


def images_of(part: str, inputs: Mapping[str, InputSpec]) -> list[str]:
    """The names of the images among the inputs. Raises PartError where there is none for `part` to
    change."""
    found = [name for name, each in inputs.items() if each.kind == "image"]
    if not found:
        raise PartError(
            f"the augmentation {part} changes images, and the inputs hold none.",
            hint=f"leave {part} out",
        )
    return found


def with_inputs(batch: Batch, changed: Mapping[str, Tensor]) -> Batch:
    """The batch with some inputs replaced; `batch` itself keeps its own."""
    return replace(batch, inputs={**batch.inputs, **changed})


def uniform(generator: torch.Generator, *shape: int, like: Tensor) -> Tensor:
    """Numbers drawn evenly from [0, 1), float32, on the device of `like`."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def normal_like(generator: torch.Generator, like: Tensor) -> Tensor:
    """Numbers drawn from the standard normal distribution, of the shape, dtype and device of
    `like`."""
    drawn = torch.randn(
        like.shape, generator=generator, device=generator.device, dtype=torch.float32
    )
    return drawn.to(like.device, like.dtype)


def chosen(generator: torch.Generator, probability: float, like: Tensor) -> Tensor:
    """Which of the rows of `like` are picked, bool (B,), each with the same probability and by
    itself."""
    return uniform(generator, len(like), like=like) < probability


def symmetric_beta(alpha: float, points: int = 2048) -> Tensor:
    """Quantiles of the distribution Beta(alpha, alpha), float32 (points + 1,), at 0, 1/points, ...,
    1.

    A table, because torch draws from Beta with no generator of the caller's; `from_quantiles` draws
    from it."""
    import numpy as np
    from scipy.special import betaincinv

    return torch.from_numpy(
        betaincinv(alpha, alpha, np.linspace(0.0, 1.0, points + 1)).astype(np.float32)
    )


def from_quantiles(quantiles: Tensor, uniform_B: Tensor) -> Tensor:
    """A draw for each uniform number, by the inverse of the distribution function, linear between
    the quantiles."""
    quantiles = quantiles.to(uniform_B.device)
    place = uniform_B * (len(quantiles) - 1)
    below = place.long().clamp_(max=len(quantiles) - 2)
    return torch.lerp(quantiles[below], quantiles[below + 1], place - below)


def partners(generator: torch.Generator, like: Tensor) -> Tensor:
    """A row of the batch for each row, int64 (B,): a random permutation."""
    return torch.randperm(len(like), generator=generator, device=generator.device).to(like.device)


def mixed_target(
    part: str,
    target: Tensor | Mapping[str, Tensor],
    output: OutputSpec,
    partner_B: Tensor,
    share_B: Tensor,
) -> Tensor:
    """share * target + (1 - share) * the partner's target, float32 (B, K); classes become
    probabilities.

    Raises PartError for several tasks, and for what has no meaning half way.
    """
    if not isinstance(target, Tensor):
        raise PartError(
            f"{part} mixes the target of one task, and this batch has several or none.",
            hint=f"leave {part} out",
        )
    if target.is_floating_point():
        whole = target
    elif output.size > 1:
        whole = functional.one_hot(target, output.size).float()
    else:
        raise PartError(
            f"{part} mixes classes or numbers, and the target is neither.", hint=f"leave {part} out"
        )
    return torch.lerp(
        whole[partner_B], whole, share_B.to(whole.dtype).view(-1, *(1,) * (whole.ndim - 1))
    )


def box_mask(
    top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor, image: Tensor
) -> Tensor:
    """Where each row's box lies, bool (B, 1, H, W); sizes and places in whole pixels."""
    y_H = torch.arange(image.shape[2], device=image.device)
    x_W = torch.arange(image.shape[3], device=image.device)
    inside_BH = (y_H >= top_B[:, None]) & (y_H < (top_B + height_B)[:, None])
    inside_BW = (x_W >= left_B[:, None]) & (x_W < (left_B + width_B)[:, None])
    return (inside_BH[:, :, None] & inside_BW[:, None, :])[:, None]


_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_GOLDEN = 0x9E3779B97F4A7C15


def counted(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """64 random bits for each place, int64 of the counters' common shape: a function of (seed,
    counters) alone.

    No generator, so no order of draws: what stands at (row 5, place 3) is drawn alike in whatever
    batch row 5 comes, on any device.
    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once for each
    counter."""
    bits: Tensor | int = seed
    for counter in counters:
        bits = counter.to(torch.int64) + bits + _signed(_GOLDEN)
        for shift, factor in _MIX:
            bits = bits ^ (
                (bits >> shift) & ((1 << (64 - shift)) - 1)
            )  # a shift that brings in zeros, not the sign
            bits = bits * _signed(factor)
    assert isinstance(bits, Tensor)
    return bits


def counted_uniform(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """Numbers drawn evenly from [0, 1), float64, by `counted`."""
    return (counted(seed, *counters) >> 11 & ((1 << 53) - 1)).double() * 2.0**-53


def counted_normal(seed: int, *counters: Tensor) -> Tensor:
    """Numbers of the standard normal distribution, float32, by `counted`.

    Source: Box and Muller, 1958.
    """
    length, angle = (
        counted_uniform(seed, *counters, counters[-1].new_tensor(number)) for number in (0, 1)
    )
    return ((-2 * torch.log1p(-length)).sqrt() * (2 * torch.pi * angle).cos()).float()


def _signed(value: int) -> int:
    """The int64 that has the bits of an unsigned number."""
    return value - (1 << 64) if value >= 1 << 63 else value
