"""The learning-rate range test: raise the rate step by step and watch where the loss falls fastest and where it breaks.

Source: Smith, 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from danlu import shelf
from danlu.apparatus import assemble
from danlu.errors import RunError, TrainingStopped
from danlu.recipe import Recipe
from danlu.step import NotFinite

_SMOOTHING = 0.9  # of the running mean of the loss; its start is corrected


@dataclass(frozen=True)
class RangeTest:
    """`rates` and the smoothed training `losses` at them; `suggestion` is a rate to train with."""

    rates: list[float]
    losses: list[float]
    suggestion: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"suggestion": self.suggestion, "rates": self.rates, "losses": self.losses}


def find_learning_rate(recipe: Recipe, least: float = 1e-6, most: float = 10.0, steps: int = 150) -> RangeTest:
    """The RangeTest of a recipe on its own data: `steps` updates of one model while the rate grows from `least` to `most`.

    It ends where the smoothed loss is four times its lowest. The suggestion is the rate of the steepest fall of the loss over the
    logarithm of the rate, which lies well below the rate that breaks. Nothing is written. Raises TrainingStopped where the loss is never
    finite, RunError for a loss of two sides at odds.
    """
    if getattr(shelf.facts("losses", recipe.loss.name), "SCORED", True) is False:
        raise RunError(
            f"the loss {recipe.loss.name} does not fall as a model gets better, so no learning rate can be read from it.",
            hint="try a few rates, and look at what is generated",
        )
    growth = (most / least) ** (1 / max(steps - 1, 1))
    built = assemble(recipe, rates=(least, lambda n: growth**n))
    state, update = built.state, built.update
    rates: list[float] = []
    losses: list[float] = []
    running, lowest = 0.0, math.inf
    for n in range(steps):
        state.loss_sum, state.loss_count = 0.0, 0.0
        try:
            update(n)
        except NotFinite:
            break
        running = _SMOOTHING * running + (1 - _SMOOTHING) * float(state.loss_sum) / float(state.loss_count)
        smooth = running / (1 - _SMOOTHING ** (n + 1))
        rates.append(least * growth**n)
        losses.append(smooth)
        lowest = min(lowest, smooth)
        if smooth > 4 * lowest + 1e-12 and n > 10:
            break
    if len(rates) < 5:
        raise TrainingStopped(
            f"the loss is not finite from a learning rate of {least:g} on.", hint="look at the inputs and the loss"
        )
    return RangeTest(rates, losses, _steepest(rates, losses))


def _steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over log(rate), before its lowest point."""
    end = max(losses.index(min(losses)), 4)
    window = range(2, max(end - 1, 3))
    slope = {i: (losses[i + 2] - losses[i - 2]) for i in window if i + 2 < len(losses)}
    return rates[min(slope, key=lambda i: slope[i])] if slope else rates[0]
