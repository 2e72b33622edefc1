"""A good first learning rate, from short trainings at many rates, or from one training whose rate
rises.

Where a recipe can be stacked (danlu.training.population), every rate has a training of its own, so
a rate is judged by its own effect. Elsewhere the learning rate range test: the rate rises step by
step, and the suggestion is where the loss falls most steeply.
Source: Smith, 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section
3.3."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from danlu import registry
from danlu.errors import RunError, TrainingStopped
from danlu.recipe import Part, Recipe
from danlu.training.population import reason_not_stackable
from danlu.training.population.loop import Population
from danlu.training.setup import build_training
from danlu.training.step import NonFiniteError

RATES = 24  # four a power of ten over the default range
_LAST = 0.2  # share of the updates, at the end, whose mean loss is the loss of a rate
_PATIENCE = 45.0  # seconds of CPU time that the trainings of all rates may take
_SMOOTHING = 0.9  # of the running mean of the loss; its start is corrected


@dataclass(frozen=True)
class RangeTest:
    """A learning rate range test: `losses` at `rates`, and the `suggestion`.

    `trainings`: whether each rate had a training of its own; else one training went through all
    rates, and the losses are smoothed."""

    rates: list[float]
    losses: list[float]
    suggestion: float
    trainings: bool = False

    def as_dict(self) -> dict[str, object]:
        """Plain data."""
        return {
            "suggestion": self.suggestion,
            "rates": self.rates,
            "losses": self.losses,
            "trainings": self.trainings,
        }


def find_learning_rate(
    recipe: Recipe, least: float = 1e-6, most: float = 10.0, steps: int = 150
) -> RangeTest:
    """The RangeTest of a recipe on its own data, for rates from `least` to `most`. Nothing is
    written.

    As one program, where that takes less than a minute: RATES trainings of steps / 2 updates, each
    at a constant rate. The loss of a rate is the mean of its last updates, and the suggestion the
    rate where it is lowest, averaged with its neighbours. Else `steps` updates of one model while
    the rate grows; it ends where the smoothed loss is four times its minimum, and the suggestion is
    where the loss falls most steeply over the logarithm of the rate.
    Raises TrainingStopped where the loss is never finite, RunError for an adversarial loss.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> test = danlu.find_learning_rate(danlu.read_recipe(recipe), steps=8)
    >>> 1e-6 <= test.suggestion <= 10
    True
    """
    if not registry.loss_facts(recipe.loss.name).scored:
        raise RunError(
            f"the loss {recipe.loss.name} does not fall as a model gets better, so it says nothing "
            "of a learning rate.",
            hint="try a few rates, and compare the generated samples",
        )
    if not reason_not_stackable(recipe):
        try:
            range_test = _by_trainings(recipe, least, most, max(steps // 2, 20))
        except RuntimeError:  # what torch raises for an operator without a rule for vmap
            range_test = None
        if range_test is not None:
            return range_test
    return _by_raising(recipe, least, most, steps)


def _by_trainings(recipe: Recipe, least: float, most: float, steps: int) -> RangeTest | None:
    """One training per rate, all in one program; None where that takes too long."""
    growth = (most / least) ** (1 / (RATES - 1))
    rates = [least * growth**index for index in range(RATES)]
    train = recipe.train.model_copy(update={"steps": steps, "epochs": None})
    schedule = Part("constant", registry.config("schedules", "constant")())
    part, options = recipe.optimizer.name, recipe.optimizer.options
    optimizers = [Part(part, options.model_copy(update={"learning_rate": rate})) for rate in rates]
    recipes = [
        replace(recipe, train=train, schedule=schedule, optimizer=optimizer)
        for optimizer in optimizers
    ]
    population = Population(recipes)
    last = max(1, round(steps * _LAST))
    for n in range(steps):
        if n == steps - last:
            for trial in population.trials:
                trial.loss_sum = trial.loss_count = 0.0
        began = time.process_time()
        population.step(n)
        if n == 1 and steps * (time.process_time() - began) > _PATIENCE:
            return None
    losses = [
        trial.loss_sum / trial.loss_count if not trial.state and trial.loss_count else math.inf
        for trial in population.all_trials
    ]
    finite = [(rate, loss) for rate, loss in zip(rates, losses) if math.isfinite(loss)]
    if len(finite) < 5:
        raise TrainingStopped(
            f"the loss is not finite from a learning rate of {least:g} on.",
            hint="look at the inputs and the loss",
        )
    # the noise of one short training must not decide: the score of a rate is the mean of its loss
    # and its neighbours', a diverged one counted as the worst
    worst = max(loss for _, loss in finite)
    bounded = [min(loss, worst) for loss in losses]
    around = [
        sum(bounded[max(index - 1, 0) : index + 2]) / len(bounded[max(index - 1, 0) : index + 2])
        for index in range(RATES)
    ]
    return RangeTest(
        [rate for rate, _ in finite],
        [loss for _, loss in finite],
        rates[around.index(min(around))],
        trainings=True,
    )


def _by_raising(recipe: Recipe, least: float, most: float, steps: int) -> RangeTest:
    """One training goes through all rates."""
    growth = (most / least) ** (1 / max(steps - 1, 1))
    built = build_training(recipe, rates=(least, lambda n: growth**n))
    state, update = built.state, built.update
    rates: list[float] = []
    losses: list[float] = []
    running, lowest = 0.0, math.inf
    for n in range(steps):
        state.loss_sum, state.loss_count = 0.0, 0.0
        try:
            update(n)
        except NonFiniteError:
            break
        running = _SMOOTHING * running + (1 - _SMOOTHING) * float(state.loss_sum) / float(
            state.loss_count
        )
        smooth = running / (1 - _SMOOTHING ** (n + 1))
        rates.append(least * growth**n)
        losses.append(smooth)
        lowest = min(lowest, smooth)
        if smooth > 4 * lowest + 1e-12 and n > 10:
            break
    if len(rates) < 5:
        raise TrainingStopped(
            f"the loss is not finite from a learning rate of {least:g} on.",
            hint="look at the inputs and the loss",
        )
    return RangeTest(rates, losses, _steepest(rates, losses))


def _steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over log(rate), before its lowest point."""
    end = max(losses.index(min(losses)), 4)
    window = range(2, max(end - 1, 3))
    slope = {i: (losses[i + 2] - losses[i - 2]) for i in window if i + 2 < len(losses)}
    return rates[min(slope, key=lambda i: slope[i])] if slope else rates[0]
