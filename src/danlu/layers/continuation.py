"""What forecasters share: a window brought to its own level and spread, and its outputs brought back.

B batch, L moments of the past, H moments ahead, F variables of the window, V variables that are forecast, Q quantiles of each,
S output columns (V times Q, the quantiles of a variable side by side).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from danlu.terms import Input, Output

Level = Literal["none", "last", "standard"]
_LEAST_SPREAD = 1e-3  # of a window that stands still, in deviations of the training rows: what divides must not blow up noise


class OwnLevel(nn.Module):
    """x_BLV -> (x on its own level, what brings outputs back): each window and variable by itself.

    none      as it is
    last      minus the last value (N-Linear; Zeng et al., 2022, arXiv:2205.13504)
    standard  minus its mean, divided by its deviation (reversible instance normalization; Kim et al., 2022). `learnt` adds a scale and
              a shift of each variable between the two, as published; they help little
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
        """Outputs on the level of the window, (B, H, V, Q)."""
        if levels is None:
            return y_BHVQ
        if self.scale is not None and self.shift is not None:
            y_BHVQ = (y_BHVQ - self.shift[:, None]) / (self.scale[:, None] + 1e-10)
        level_B1V, spread_B1V = levels
        return y_BHVQ * spread_B1V.unsqueeze(-1) + level_B1V.unsqueeze(-1)


class Variables(nn.Module):
    """window_BLF -> (the V variables that are forecast, what else the window holds): by the names of inputs and output.

    `forecast` says where they stand, `others` where the rest does; `quantiles` is Q.
    """

    def __init__(self, series: Input, output: Output) -> None:
        super().__init__()
        names = list(dict.fromkeys(output.of))
        unknown = [name for name in names if name not in series.names]
        if unknown or not names or output.size % len(names):
            raise ValueError(
                f"the output continues {', '.join(output.of) or 'nothing'}, and the series holds {', '.join(series.names)}"
            )
        self.forecast = [series.names.index(name) for name in names]
        self.others = [place for place in range(series.shape[1]) if place not in self.forecast]
        self.quantiles = output.size // len(names)
        self.first = self.forecast == list(range(len(names)))

    def forward(self, window_BLF: Tensor) -> tuple[Tensor, Tensor | None]:
        count = len(self.forecast)
        if self.first:  # the usual order: views
            return window_BLF[..., :count], window_BLF[..., count:] if self.others else None
        return window_BLF[..., self.forecast], window_BLF[..., self.others] if self.others else None


def width_of(inputs: Sequence[Input]) -> int:
    """How many numbers the inputs hold at one moment or row."""
    return sum(each.shape[-1] for each in inputs)
