"""Rotary positions: queries and keys are turned by an angle that grows with their place, so that their product tells the distance.

B batch, T places, H heads, E size of a head, F = E / 2 angles. The first half of a head is turned against the second half, as in the
Llama of Hugging Face: entries i and i + F are one plane.
Source: Su et al., 2021, arXiv:2104.09864.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

THETA = 10_000.0  # base of the wave lengths, Llama's


class Rotary(nn.Module):
    """angles(...) gives what `turn` needs for the places asked; the table grows with the longest text seen."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, head_size: int, context: int, theta: float = THETA) -> None:
        super().__init__()
        if head_size % 2:
            raise ValueError(f"a head of {head_size} numbers cannot be turned in pairs")
        self.head_size = head_size
        self.theta = theta
        cosines_TF, sines_TF = self._table(context)
        self.register_buffer("cosines", cosines_TF, persistent=False)
        self.register_buffer("sines", sines_TF, persistent=False)

    def _table(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, F); in float64 first, since float32 angles of late places lose their last digits."""
        planes_F = torch.arange(0, self.head_size, 2, dtype=torch.float64) / self.head_size
        angles_TF = torch.arange(length, dtype=torch.float64)[:, None] * self.theta**-planes_F
        return angles_TF.cos().float(), angles_TF.sin().float()

    def angles(self, length: int, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(cosines, sines) of places 0 to length - 1 as (1, T, 1, F), or of `positions` (B, T), all below `length`, as (B, T, 1, F)."""
        if length > len(self.cosines):
            cosines_TF, sines_TF = self._table(max(length, 2 * len(self.cosines)))
            self.cosines, self.sines = cosines_TF.to(self.cosines), sines_TF.to(self.sines)
        if positions is None:
            return self.cosines[None, :length, None], self.sines[None, :length, None]
        return self.cosines[positions].unsqueeze(-2), self.sines[positions].unsqueeze(-2)


def turn(x_BTHE: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Every head turned by the angles of its place; same shape and dtype."""
    cosines, sines = angles
    first, second = x_BTHE.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1).to(x_BTHE.dtype)
