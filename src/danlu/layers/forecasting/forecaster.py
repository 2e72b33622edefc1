"""Forecasting a window: normalise it reversibly, run a body, bring the outputs back to its scale.

B batch, L moments of the past, H moments ahead, F variables of the window, V variables that are
forecast, Q quantiles of each, C other columns of the window, K columns known ahead, S columns that
do not change in time, N rows of a body, W width of a matrix. The V * Q columns of an output have
the quantiles of one variable side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.terms import InputSpec, OutputSpec

Level = Literal["none", "last", "standard"]
# The smallest deviation that a window is divided by, in deviations of the training rows: else the
# noise of a constant window would be magnified.
_LEAST_SPREAD = 1e-3


class ReversibleNorm(nn.Module):
    """x_BLV -> (normalised x, what `back` needs), separately for each window and variable.

    none      x unchanged
    last      x minus its last value (N-Linear; Zeng et al., 2022, arXiv:2205.13504)
    standard  x minus its mean, divided by its deviation (reversible instance normalization; Kim et
              al., 2022). `learnt` adds a learnt scale and shift for each variable, as published;
              they help little
    """

    def __init__(self, kind: Level, variables: int, learnt: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.ones(variables)) if learnt and kind == "standard" else None
        self.shift = nn.Parameter(torch.zeros(variables)) if learnt and kind == "standard" else None

    def forward(self, x_BLV: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        if self.kind == "none":
            return x_BLV, None
        if self.kind == "last":
            level_B1V = x_BLV[:, -1:]
            return x_BLV - level_B1V, (level_B1V, torch.ones_like(level_B1V))
        level_B1V = x_BLV.mean(1, keepdim=True)
        spread_B1V = x_BLV.var(1, correction=0, keepdim=True).add(_LEAST_SPREAD**2).sqrt()
        y_BLV = (x_BLV - level_B1V) / spread_B1V
        if self.scale is not None and self.shift is not None:
            y_BLV = y_BLV * self.scale + self.shift
        return y_BLV, (level_B1V, spread_B1V)

    def back(self, y_BHVQ: Tensor, levels: tuple[Tensor, Tensor] | None) -> Tensor:
        """Outputs (B, H, V, Q) in the units of the window."""
        if levels is None:
            return y_BHVQ
        if self.scale is not None and self.shift is not None:
            y_BHVQ = (y_BHVQ - self.shift[:, None]) / (self.scale[:, None] + 1e-10)
        level_B1V, spread_B1V = levels
        return y_BHVQ * spread_B1V.unsqueeze(-1) + level_B1V.unsqueeze(-1)


class SplitVariables(nn.Module):
    """window_BLF -> (the V variables that are forecast; the other columns, None where there are
    none).

    forecast, others   the columns of the window that belong to each, by the names of input and
                       output; ValueError where the output names a column that the window lacks
    quantiles          Q
    """

    def __init__(self, series: InputSpec, output: OutputSpec) -> None:
        super().__init__()
        names = list(dict.fromkeys(output.of))
        unknown = [name for name in names if name not in series.names]
        if unknown or not names or output.size % len(names):
            raise ValueError(
                f"the output continues {', '.join(output.of) or 'nothing'}, and the series holds "
                f"{', '.join(series.names)}"
            )
        self.forecast = [series.names.index(name) for name in names]
        self.others = [column for column in range(series.shape[1]) if column not in self.forecast]
        self.quantiles = output.size // len(names)
        self.first = self.forecast == list(range(len(names)))

    def forward(self, window_BLF: Tensor) -> tuple[Tensor, Tensor | None]:
        count = len(self.forecast)
        if self.first:  # the usual order: views
            return window_BLF[..., :count], window_BLF[..., count:] if self.others else None
        return window_BLF[..., self.forecast], window_BLF[..., self.others] if self.others else None


class LinearOverTime(nn.Module):
    """x_BLV -> (B, H, V, Q): every step ahead is a weighted sum of the L moments; with `shared` one
    matrix for all variables, else one for each."""

    def __init__(
        self, moments: int, steps: int, variables: int, quantiles: int, shared: bool
    ) -> None:
        super().__init__()
        self.quantiles, self.shared = quantiles, shared
        wide = steps * quantiles
        # starts as the mean of the past, which is a forecast already
        self.weight = nn.Parameter(
            torch.full((wide, moments) if shared else (variables, wide, moments), 1 / moments)
        )
        self.bias = nn.Parameter(torch.zeros(wide) if shared else torch.zeros(variables, wide))

    def forward(self, x_BLV: Tensor) -> Tensor:
        if self.shared:
            y_BVW = functional.linear(x_BLV.transpose(1, 2), self.weight, self.bias)
        else:
            y_BVW = torch.baddbmm(
                self.bias[:, None], x_BLV.permute(2, 0, 1), self.weight.transpose(1, 2)
            ).transpose(0, 1)
        return y_BVW.unflatten(-1, (-1, self.quantiles)).transpose(1, 2)


@dataclass(frozen=True)
class BodySizes:
    """The sizes of a body: it takes `channels` numbers at each of `moments`, `future` numbers at
    each of `steps` ahead and `static` numbers, and gives `size` numbers for each step."""

    moments: int
    channels: int
    future: int
    static: int
    steps: int
    size: int


class Forecaster(nn.Module):
    """inputs -> (B, H, V * Q), by a body that takes window (N, L, channels), future (N, H, K) or
    None, static (N, S) or None, and gives (N, H, size).

    The body runs on each variable separately, with the other columns beside it and the same
    weights; with `mix` on all variables together. With `linear` a linear forecast is added, so that
    the body learns the rest (Das et al., 2023, arXiv:2304.08424).
    """

    def __init__(
        self,
        inputs: Mapping[str, InputSpec],
        output: OutputSpec,
        body: Callable[[BodySizes], nn.Module],
        *,
        level: Level,
        mix: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        series = inputs["series"]
        self.variables = SplitVariables(series, output)
        count, others, quantiles = (
            len(self.variables.forecast),
            len(self.variables.others),
            self.variables.quantiles,
        )
        self.mix = mix or count == 1
        self.count, self.quantiles = count, quantiles
        self.level = ReversibleNorm(level, count)
        future, static = (
            inputs[name].shape[-1] if name in inputs else 0 for name in ("future", "numbers")
        )
        channels, size = (count + others, output.size) if self.mix else (1 + others, quantiles)
        self.body = body(BodySizes(series.shape[0], channels, future, static, output.steps, size))
        self.linear = (
            LinearOverTime(series.shape[0], output.steps, count, quantiles, shared=True)
            if linear
            else None
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BLV, others_BLC = self.variables(inputs["series"])
        x_BLV, levels = self.level(x_BLV)
        future_BHK, static_BS = inputs.get("future"), inputs.get("numbers")
        if self.mix:
            window_BLC = x_BLV if others_BLC is None else torch.cat([x_BLV, others_BLC], dim=2)
            y_BHVQ = self.body(window_BLC, future_BHK, static_BS).unflatten(
                -1, (self.count, self.quantiles)
            )
        else:
            y_BHVQ = self._one_by_one(x_BLV, others_BLC, future_BHK, static_BS)
        if self.linear is not None:
            y_BHVQ = y_BHVQ + self.linear(x_BLV)
        return self.level.back(y_BHVQ, levels).flatten(2)

    def _one_by_one(self, x_BLV: Tensor, *beside: Tensor | None) -> Tensor:
        """The body run on each variable, as V times as many rows of the batch."""
        window_NLC = x_BLV.transpose(1, 2).reshape(-1, x_BLV.shape[1], 1)
        others, future, static = (
            None if tensor is None else tensor.repeat_interleave(self.count, dim=0)
            for tensor in beside
        )
        if others is not None:
            window_NLC = torch.cat([window_NLC, others], dim=2)
        return self.body(window_NLC, future, static).unflatten(0, (-1, self.count)).transpose(1, 2)
