"""The coordinate check of muP: activations must change equally at every width of the network.

Under a correct parametrization the mean absolute change of each layer's activations since the start
has the same size at all widths; under a wrong one it grows or shrinks as a power of the width. The
power is the slope of log(change) over log(width); the largest slope over the first updates counts,
since a change that is still dominated by the random start, or has saturated, shows a smaller one.
It must lie in [LOWER_BOUND, UPPER_BOUND], and the power of the activations themselves must not
exceed UPPER_BOUND.

Attention scores may shrink: under muP those of the random start do so as 1 / sqrt(width), until
queries and keys are aligned by training. So the check cannot see whether their multiplier is there.

Source: Yang et al., 2022, arXiv:2203.03466, appendix D.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from danlu import registry
from danlu.data.dataset import keep_in_memory
from danlu.errors import MissingExtra, RunError
from danlu.layers.attention.multi_head import Attention
from danlu.parts.optimizers._base import learning_rate_of
from danlu.recipe import Recipe, with_changes
from danlu.search.widths import at_width, width_of
from danlu.system.placement import EVALUATION, draw_seed
from danlu.system.private_files import keep_inside_cache
from danlu.training.setup import TrainingSetup, build_training
from danlu.training.step import NonFiniteError

UPPER_BOUND = 0.3  # of the powers; a wrong parametrization has one of 0.5 or 1
# Of a change. Under plain gradient descent narrow networks follow the law less closely: their
# power can be -0.33.
LOWER_BOUND = -0.4
STEPS = 5
SEEDS = 2
MAX_ROWS = 512  # rows, or tokens, of a batch at most: the check is to cost little
SCORES = ".scores"  # what the softmax of an attention takes


@dataclass(frozen=True)
class CoordinateCheck:
    """Activations by layer and step (0 is the start), one value per width in `widths`.

    sizes    mean absolute activation on the probe batch
    changes  mean absolute difference between the activation and its start

    >>> check = CoordinateCheck([8, 16], {"0": [[1.0, 1.0]]}, {"0": [[0.1, 0.2]]})
    >>> round(check.powers()["0"], 6), check.passed
    (1.0, False)
    """

    widths: list[int]
    sizes: dict[str, list[list[float]]]
    changes: dict[str, list[list[float]]]

    def powers(self) -> dict[str, float]:
        """By layer, the largest power of the width in its change, over the updates."""
        return {
            name: max(_slope(self.widths, step) for step in steps)
            for name, steps in self.changes.items()
        }

    def growth(self) -> dict[str, float]:
        """By layer, the largest power of the width in its size, at the start and after updates."""
        return {
            name: max(_slope(self.widths, step) for step in steps)
            for name, steps in self.sizes.items()
        }

    def wrong(self) -> dict[str, float]:
        """The layers that fail, each with the power by which it fails, the worst first."""
        powers = {name: power for name, power in self.growth().items() if not power <= UPPER_BOUND}
        for name, power in self.powers().items():
            shrinks = not power >= LOWER_BOUND and not name.endswith(SCORES)
            if shrinks or not power <= max(UPPER_BOUND, powers.get(name, UPPER_BOUND)):
                powers[name] = power
        return dict(sorted(powers.items(), key=lambda pair: -abs(pair[1])))

    @property
    def passed(self) -> bool:
        """Whether every layer is within the bounds."""
        return not self.wrong()

    def sentence(self) -> str:
        """The result as a sentence."""
        among = f"widths {', '.join(f'{width:,}' for width in self.widths)}"
        if self.passed:
            powers = {
                name: power for name, power in self.powers().items() if not name.endswith(SCORES)
            }
            worst = max(powers.values(), key=abs)
            return (
                f"coordinate check passed: {len(self.changes)} layers move alike at {among} "
                f"(worst power {worst:+.2f})."
            )
        name, slope = next(iter(self.wrong().items()))
        count = len(self.wrong())
        others = f"; {count - 1} other layers fail as well" if count > 1 else ""
        return (
            f"coordinate check failed at {among}: the activations of {name} go by the power "
            f"{slope:+.2f} of the width{others} (allowed: {LOWER_BOUND:g} to {UPPER_BOUND:g})."
        )

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "widths": self.widths,
            "bounds": [LOWER_BOUND, UPPER_BOUND],
            "passed": self.passed,
            "wrong": self.wrong(),
            "powers": self.powers(),
            "growth": self.growth(),
            "sizes": self.sizes,
            "changes": self.changes,
        }


def check_coordinates(
    recipe: Recipe, widths: Sequence[int], *, steps: int = STEPS, seeds: int = SEEDS
) -> CoordinateCheck:
    """Check a recipe at several `widths`: `steps` updates on small batches at the recipe's learning
    rate, averaged over `seeds`.

    Writes no file. Raises RunError where a loss is not finite, or the model has no width.
    """
    by_width: list[
        list[dict[str, tuple[float, float]]]
    ] = []  # by width, by step: layer -> (size, change)
    with keep_in_memory():
        for width in widths:
            runs = [
                _train(at_width(recipe, width), recipe.train.seed + number, steps)
                for number in range(seeds)
            ]
            by_width.append([_mean([run[step] for run in runs]) for step in range(steps + 1)])
    names = [name for name in by_width[0][0] if all(name in by_step[0] for by_step in by_width)]
    sizes, changes = (
        {
            name: [
                [by_step[step][name][which] for by_step in by_width]
                for step in range(which, steps + 1)
            ]
            for name in names
        }
        for which in (0, 1)
    )
    return CoordinateCheck(list(widths), sizes, changes)


def widths_between(recipe: Recipe, narrow: int) -> list[int]:
    """The widths to check: `narrow`, doubled up to the recipe's own width; at least three, at most
    four."""
    most = max(width_of(recipe), 4 * narrow)
    return [narrow * times for times in (1, 2, 4, 8) if narrow * times <= most]


def _train(recipe: Recipe, seed: int, steps: int) -> list[dict[str, tuple[float, float]]]:
    """By step, the (size, change) of each layer's activation."""
    setup = build_training(_small(recipe, seed), rates=(_rate(recipe), lambda n: 1.0))
    start = _activations(setup)
    moves = [{name: (_size(activation), 0.0) for name, activation in start.items()}]
    for n in range(steps):
        try:
            setup.update(n)
        except NonFiniteError:
            raise RunError(
                f"the coordinate check found a NaN or infinity after {n} updates at width "
                f"{width_of(recipe):,}.",
                hint="lower optimizer.learning_rate",
            ) from None
        now = _activations(setup)
        moves.append(
            {
                name: (_size(activation), _size(activation - start[name]))
                for name, activation in now.items()
            }
        )
    return moves


@runtime_checkable
class _ContextOption(Protocol):
    """The options of a task whose examples are `context` tokens long."""

    context: int | None


def _small(recipe: Recipe, seed: int) -> Recipe:
    """The recipe as it is checked: in float32, with a small batch."""
    changes: dict[str, Any] = {
        "train.seed": seed,
        "train.precision": "float32",
        "train.compile": False,
        "train.micro_batch": None,
    }
    if recipe.train.batch_size != "all":
        options = recipe.task.options
        units = (options.context if isinstance(options, _ContextOption) else None) or 1
        changes["train.batch_size"] = max(1, min(int(recipe.train.batch_size), MAX_ROWS // units))
    return with_changes(recipe, registry, changes)


def _rate(recipe: Recipe) -> float:
    return learning_rate_of(recipe.optimizer.options)


def _activations(setup: TrainingSetup) -> dict[str, Tensor]:
    """The output of every layer with weights for the first batch, in training mode, with the same
    dropout every time."""
    module, activations = setup.state.module, {}
    batch = setup.rows.gather(setup.batches.indices(0))
    setup.placement.seed(draw_seed(setup.recipe.train.seed, EVALUATION, 0))
    with torch.no_grad(), _record_activations(module, activations):
        activations["outputs"] = module(batch.inputs).detach().clone()
    return activations


@contextmanager
def _record_activations(module: nn.Module, activations: dict[str, Tensor]) -> Iterator[None]:
    """While the context lasts, store the outputs of layers, and the scores of attention, in
    `activations`."""

    def keep(name: str) -> Callable[..., None]:
        def hear(
            layer: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any], output: Any
        ) -> None:
            if isinstance(layer, Attention):
                activations[name + SCORES] = layer.scores(
                    arguments[0], options.get("angles")
                ).detach()
            elif isinstance(output, Tensor):
                activations[name] = output.detach().clone()  # an activation may write over it

        return hear

    hooks = [
        layer.register_forward_hook(keep(name), with_kwargs=True)
        for name, layer in module.named_modules()
        if name
        and (
            isinstance(layer, Attention) or next(layer.parameters(recurse=False), None) is not None
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _size(activation: Tensor) -> float:
    return float(activation.double().abs().mean())


def _mean(runs: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """By layer, the geometric mean over runs: an unusual draw changes it little."""
    return {
        name: (
            _geometric([run[name][0] for run in runs]),
            _geometric([run[name][1] for run in runs]),
        )
        for name in runs[0]
    }


def _geometric(values: list[float]) -> float:
    return (
        math.exp(sum(math.log(value) for value in values) / len(values)) if min(values) > 0 else 0.0
    )


def _slope(widths: Sequence[int], values: Sequence[float]) -> float:
    """The power of the width in `values`, one value per width; 0 where all are 0, NaN where some
    are 0 or not finite."""
    if not any(values):
        return 0.0
    if not all(0 < value < math.inf for value in values):
        return math.nan
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def draw_check(check: CoordinateCheck, path: Path) -> None:
    """Draw a PNG: change over width after each update, one line per layer. Raises MissingExtra
    without matplotlib."""
    keep_inside_cache("MPLCONFIGDIR", "matplotlib", ".config/matplotlib")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plots", "a plot of the coordinate check") from None
    steps = len(next(iter(check.changes.values())))
    figure = Figure(figsize=(3.2 * steps, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    wrong = check.wrong()
    for step in range(steps):
        axes = figure.add_subplot(
            1, steps, step + 1, sharey=figure.axes[0] if figure.axes else None
        )
        for name, by_step in check.changes.items():
            fails = name in wrong
            label = f"{name} ({wrong[name]:+.2f})" if fails and step == 0 else None
            axes.plot(
                check.widths,
                by_step[step],
                color="#c0392b" if fails else "#2c7fb8",
                alpha=0.9 if fails else 0.5,
                label=label,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_title(f"after {step + 1} update{'s' if step else ''}")
        axes.set_xlabel("width")
        if step == 0:
            axes.set_ylabel("mean absolute change of activations")
            if wrong:
                axes.legend(fontsize=6)
    figure.suptitle("coordinate check: " + ("passed" if check.passed else "failed (red)"))
    figure.savefig(path, dpi=120)
