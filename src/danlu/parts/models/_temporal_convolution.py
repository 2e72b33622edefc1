"""Temporal convolution: causal convolutions whose taps lie ever further apart, so that the last moment sees the whole window.

N rows, L moments of the past, H moments ahead, C channels of the window, D width, K columns known
ahead, S columns that stand still.
Source: Bai et al., 2018, arXiv:1803.01271.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.dropout import Dropout
from danlu.layers.forecasting.forecaster import BodySizes

_AHEAD = 16  # numbers that stand for a moment ahead, where it meets what is known of it


def layers_to_see(moments: int, kernel: int) -> int:
    """How many blocks the last moment needs to see `moments`: two convolutions each, taps 1, 2, 4,
    ... apart."""
    count, seen = 1, 1 + 2 * (kernel - 1)
    while seen < moments:
        seen += 2 * (kernel - 1) * 2**count
        count += 1
    return count


class CausalConvolution(nn.Module):
    """x_NDL -> (N, out, L): each moment a weighted sum of itself and the `kernel` - 1 before it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.convolution = nn.Conv1d(inputs, outputs, kernel)

    def forward(self, x_NDL: Tensor) -> Tensor:
        return self.convolution(functional.pad(x_NDL, (self.before, 0)))


class TemporalBlock(nn.Module):
    """x_NDL -> (N, D, L): x + two causal convolutions with an activation after each."""

    def __init__(self, inputs: int, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            CausalConvolution(inputs, width, kernel),
            nn.GELU(),
            Dropout(dropout),
            CausalConvolution(width, width, kernel),
            nn.GELU(),
            Dropout(dropout),
        )
        self.skip = nn.Identity() if inputs == width else nn.Conv1d(inputs, width, 1)

    def forward(self, x_NDL: Tensor) -> Tensor:
        return self.skip(x_NDL) + self.body(x_NDL)


class TemporalStack(nn.Module):
    """window_NLC -> (N, D): what blocks, taps 1, 2, 4, ... apart, make of the last moment.

    The last moment is all that is asked for, and of block i it needs every 2^i-th moment only: half
    of them go after each block, and taps that would lie 2^i apart lie side by side. The numbers are
    those of dilated convolutions, at a fraction of the work."""

    def __init__(self, channels: int, width: int, kernel: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TemporalBlock(width if number else channels, width, kernel, dropout)
            for number in range(layers)
        )

    def forward(self, window_NLC: Tensor) -> Tensor:
        x_NDL = window_NLC.transpose(1, 2)
        for block in self.blocks:
            x_NDL = block(x_NDL)
            x_NDL = x_NDL[..., (x_NDL.shape[-1] - 1) % 2 :: 2]  # the last moment stays
        return x_NDL[..., -1]


class TemporalForecast(nn.Module):
    """(window_NLC, future_NHK or None, static_NS or None) -> (N, H, size): from the last moment to
    all steps ahead at once.

    With a known future every step ahead is a small vector first, which meets what is known of that
    step in a layer of its own."""

    def __init__(
        self, sizes: BodySizes, *, width: int, kernel: int, layers: int | None, dropout: float
    ) -> None:
        super().__init__()
        layers = layers or layers_to_see(sizes.moments, kernel)
        self.stack = TemporalStack(sizes.channels, width, kernel, layers, dropout)
        self.steps = sizes.steps
        features_per_step = _AHEAD if sizes.future else sizes.size
        self.ahead = nn.Linear(width + sizes.static, sizes.steps * features_per_step)
        self.meet = (
            nn.Sequential(
                nn.Linear(features_per_step + sizes.future, width),
                nn.GELU(),
                nn.Linear(width, sizes.size),
            )
            if sizes.future
            else None
        )

    def forward(
        self, window_NLC: Tensor, future_NHK: Tensor | None, static_NS: Tensor | None
    ) -> Tensor:
        state_ND = self.stack(window_NLC)
        if static_NS is not None:
            state_ND = torch.cat([state_ND, static_NS], dim=1)
        y_NHE = self.ahead(state_ND).unflatten(1, (self.steps, -1))
        return (
            y_NHE
            if self.meet is None or future_NHK is None
            else self.meet(torch.cat([y_NHE, future_NHK], dim=2))
        )


class TemporalSummary(nn.Module):
    """inputs -> (B, size): one answer for a whole series, from its last moment and the columns that
    stand beside it."""

    def __init__(
        self,
        channels: int,
        static: int,
        size: int,
        *,
        width: int,
        kernel: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stack = TemporalStack(channels, width, kernel, layers, dropout)
        self.last = nn.Linear(width + static, size)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        state_BD = self.stack(inputs["series"])
        return self.last(
            torch.cat([state_BD, inputs["numbers"]], dim=1) if "numbers" in inputs else state_BD
        )
