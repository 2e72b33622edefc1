"""Temporal convolution: dilated causal convolutions, so that the last step sees the whole window.

N rows, L time steps of the past, H time steps ahead, C channels of the window, D width, K columns
known in advance, S static columns.
Source: Bai et al., 2018, arXiv:1803.01271.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.dropout import Dropout
from danlu.layers.forecasting.forecaster import BodySizes

_AHEAD = 16  # features per step ahead that are joined with the known future


def layers_to_see(moments: int, kernel: int) -> int:
    """How many blocks of two convolutions with dilations 1, 2, 4, ... the last time step needs to
    see `moments` time steps."""
    count, seen = 1, 1 + 2 * (kernel - 1)
    while seen < moments:
        seen += 2 * (kernel - 1) * 2**count
        count += 1
    return count


class CausalConvolution(nn.Module):
    """x_NDL -> (N, out, L): each time step a weighted sum of itself and the `kernel` - 1 before."""

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
    """window_NLC -> (N, D): the last time step after blocks of dilation 1, 2, 4, ...

    Only the last time step is needed, and it depends on every 2^i-th step of block i only. So half
    of the steps are dropped after each block, and kernels need no dilation. The results are those
    of dilated convolutions, at a fraction of the work."""

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
            x_NDL = x_NDL[..., (x_NDL.shape[-1] - 1) % 2 :: 2]  # the last time step stays
        return x_NDL[..., -1]


class TemporalForecast(nn.Module):
    """(window_NLC, future_NHK or None, static_NS or None) -> (N, H, size): all steps ahead from the
    last time step.

    With a known future every step ahead is a small vector first, which another layer joins with the
    known columns of that step.
    """

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
    """inputs -> (B, size): one output per series, from its last time step and its static
    columns."""

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
