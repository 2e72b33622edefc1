"""Linear forecasters: a weighted sum of the past, of other columns, and of the known future.

B batch, L time steps of the past, H time steps ahead, F variables of the window, V variables that
are forecast, Q quantiles of each, C other columns of the window, K columns known in advance, R
channels that these are projected to.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.forecasting.forecaster import (
    Level,
    LinearOverTime,
    ReversibleNorm,
    SplitVariables,
)
from danlu.terms import InputSpec, OutputSpec

# Other columns are projected to so many channels before they are weighed over time; otherwise their
# weights would outnumber all others.
_CHANNELS = 8


class MovingAverage(nn.Module):
    """x_BLV -> (B, L, V): the mean over `moments` time steps around each; the ends are padded with
    the first and the last value."""

    def __init__(self, moments: int) -> None:
        super().__init__()
        self.before, self.after = (moments - 1) // 2, moments // 2
        self.moments = moments

    def forward(self, x_BLV: Tensor) -> Tensor:
        x_BVL = functional.pad(x_BLV.transpose(1, 2), (self.before, self.after), mode="replicate")
        return functional.avg_pool1d(x_BVL, self.moments, stride=1).transpose(1, 2)


class FromOthers(nn.Module):
    """(others_BLC, future_BHK, static_BS) -> (B, H, V, Q): what other columns add to the forecast;
    0 before training. Each argument may be None."""

    def __init__(
        self, moments: int, steps: int, sizes: tuple[int, int, int], variables: int, quantiles: int
    ) -> None:
        super().__init__()
        others, future, static = sizes
        self.quantiles = quantiles
        wide = variables * quantiles
        channels = min(others, _CHANNELS)
        self.mix = nn.Linear(others, channels, bias=False) if others > channels else None
        self.over_time = (
            LinearOverTime(moments, steps, channels, 1, shared=False) if others else None
        )
        self.others = _silent(channels, wide) if others else None
        self.future = _silent(future, wide) if future else None
        self.static = _silent(static, wide) if static else None

    def forward(
        self, others_BLC: Tensor | None, future_BHK: Tensor | None, static_BS: Tensor | None
    ) -> Tensor | float:
        total: Tensor | float = 0.0
        if others_BLC is not None and self.others is not None and self.over_time is not None:
            others_BLR = others_BLC if self.mix is None else self.mix(others_BLC)
            total = total + self.others(self.over_time(others_BLR).squeeze(-1))
        if future_BHK is not None and self.future is not None:
            total = total + self.future(future_BHK)
        if static_BS is not None and self.static is not None:
            total = total + self.static(static_BS)[:, None]
        return total.unflatten(-1, (-1, self.quantiles)) if isinstance(total, Tensor) else total


def _silent(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias, with weights 0."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class LinearForecast(nn.Module):
    """inputs -> (B, H, V * Q); see danlu.parts.models.linear_forecaster."""

    def __init__(
        self,
        inputs: Mapping[str, InputSpec],
        output: OutputSpec,
        *,
        smooth: int | None,
        level: Level,
        shared: bool,
    ) -> None:
        super().__init__()
        series = inputs["series"]
        self.variables = SplitVariables(series, output)
        count, quantiles, moments = (
            len(self.variables.forecast),
            self.variables.quantiles,
            series.shape[0],
        )
        self.level = ReversibleNorm(level, count)
        self.smooth = None if smooth is None else MovingAverage(min(smooth, moments))
        self.rest = LinearOverTime(moments, output.steps, count, quantiles, shared)
        self.trend = (
            None
            if smooth is None
            else LinearOverTime(moments, output.steps, count, quantiles, shared)
        )
        sizes = (
            len(self.variables.others),
            *(inputs[name].shape[-1] if name in inputs else 0 for name in ("future", "numbers")),
        )
        self.others = (
            FromOthers(moments, output.steps, (sizes[0], sizes[1], sizes[2]), count, quantiles)
            if any(sizes)
            else None
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BLV, others_BLC = self.variables(inputs["series"])
        x_BLV, levels = self.level(x_BLV)
        if self.smooth is not None and self.trend is not None:
            trend_BLV = self.smooth(x_BLV)
            y_BHVQ = self.trend(trend_BLV) + self.rest(x_BLV - trend_BLV)
        else:
            y_BHVQ = self.rest(x_BLV)
        if self.others is not None:
            y_BHVQ = y_BHVQ + self.others(others_BLC, inputs.get("future"), inputs.get("numbers"))
        return self.level.back(y_BHVQ, levels).flatten(2)
