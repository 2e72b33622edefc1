"""Several steps ahead from the last state of a recurrent network, and from the known future.

B batch, L time steps of the past, H time steps ahead, F variables of the window, V of them
forecast, Q quantiles of each, K columns known in advance, D size of a state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from danlu.layers.dropout import Dropout
from danlu.layers.forecasting.forecaster import ReversibleNorm, SplitVariables
from danlu.layers.recurrent.rnn import Recurrent
from danlu.layers.recurrent.sequence_reader import lengths_of


class RecurrentForecast(nn.Module):
    """inputs -> (B, H, V * Q).

    The normalised window goes through `past`; every step ahead is linear in the last state and in
    the features that `aside` makes of the row's other inputs. Columns known in advance go through
    `ahead` in both directions, and each step adds a linear function of its states there.
    """

    def __init__(
        self,
        variables: SplitVariables | None,
        level: ReversibleNorm,
        past: Recurrent,
        aside: tuple[nn.Module, int] | None,
        ahead: Recurrent | None,
        steps: int,
        size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.variables, self.level, self.past, self.ahead = variables, level, past, ahead
        self.aside = None if aside is None else aside[0]
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(past.width + (0 if aside is None else aside[1]), steps * size)
        self.known = nn.Linear(ahead.width, size, bias=False) if ahead is not None else None
        self.steps = steps

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        window_BLF, levels = self._levelled(inputs["series"])
        lengths_B = lengths_of("series", inputs)
        state_BD = self.past.last(self.past(window_BLF, lengths_B), lengths_B)
        if self.aside is not None:
            state_BD = torch.cat([state_BD, self.aside(inputs)], dim=1)
        y_BHS = self.head(self.dropout(state_BD)).unflatten(1, (self.steps, -1))
        if self.ahead is not None and self.known is not None:
            y_BHS = y_BHS + self.known(
                self.dropout(self.ahead(inputs["future"], lengths_of("future", inputs)))
            )
        if self.variables is None:
            return y_BHS
        return self.level.back(y_BHS.unflatten(2, (-1, self.variables.quantiles)), levels).flatten(
            2
        )

    def _levelled(self, window_BLF: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        if self.variables is None:
            return window_BLF, None
        x_BLV, others_BLC = self.variables(window_BLF)
        x_BLV, levels = self.level(x_BLV)
        return (x_BLV if others_BLC is None else torch.cat([x_BLV, others_BLC], dim=2)), levels
