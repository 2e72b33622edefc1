"""How many trials to train in one stack: a few steps of growing stacks are timed against one
training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from danlu.layers.tensors import bytes_of
from danlu.recipe import Recipe
from danlu.system import machine
from danlu.system.placement import Placement
from danlu.training.population.loop import Population
from danlu.training.setup import build_training

SIZES = (4, 16, 64, 256)
_SECONDS = 0.1  # of one measurement
_WORSE = 1.25  # a stack that takes this many times the best time per trial ends the search
_MEMORY = 0.4  # share of the free memory that a stack with its state may take


@dataclass(frozen=True)
class StackThroughput:
    """The best stack size for trials of one shape.

    size        trials in one stack; 1 where a stack is not faster
    precision   the number format of the stack
    alone       seconds per update of a single training
    stacked     seconds per update and trial in the stack
    curve       (size, precision, seconds per update and trial) of every measurement
    reason      the outcome in words
    """

    size: int
    precision: str
    alone: float
    stacked: float
    curve: tuple[tuple[int, str, float], ...]
    reason: str

    def as_dict(self) -> dict[str, object]:
        """All of it as JSON values."""
        return asdict(self)


def measure_throughput(
    recipes: Sequence[Recipe], most: int, *, at_once: int = 1, alone: float | None = None
) -> StackThroughput:
    """The StackThroughput of trials of one shape, measured with `recipes` (repeated as often as
    needed) in stacks of up to `most`.

    `at_once` stacks will be trained side by side, so each may take one of as many shares of the
    free memory. `alone` replaces its own measurement."""
    built = build_training(recipes[0])
    clock = clock_of(built.placement)
    alone = _fastest(built.update, clock) if alone is None else alone
    precisions = [built.placement.precision]
    if (
        recipes[0].train.precision == "auto"
        and precisions == ["float32"]
        and _has_narrow(built.placement.device.type)
    ):
        precisions.insert(0, "bfloat16")
    learnt = sum(weight.numel() * 4 for weight in built.state.module.parameters())
    one = 6.0 * learnt + 4.0 * bytes_of(
        built.batches.take(0).inputs
    )  # weights, gradients, state, and what passes through
    room = max(1, int(_MEMORY * (machine.memory()[1]) / at_once / max(one, 1.0)))
    curve: list[tuple[int, str, float]] = []
    sizes = sorted({*(size for size in SIZES if size < most), max(min(most, SIZES[-1]), SIZES[0])})
    for precision in precisions:
        best = math.inf
        for size in sizes:
            if size > max(room, 1) or size > most > 1:
                break
            try:
                seconds = _of_stack(
                    [recipes[index % len(recipes)] for index in range(size)], precision, clock
                )
            except (
                Exception
            ) as error:  # torch raises many kinds of error for what has no rule for vmap
                return StackThroughput(
                    1,
                    precisions[0],
                    alone,
                    math.inf,
                    tuple(curve),
                    f"the model cannot be stacked ({_short(error)})",
                )
            curve.append((size, precision, seconds))
            if seconds > _WORSE * best:
                break
            best = min(best, seconds)
        if curve:  # the best size hardly depends on the format
            sizes = [min(curve, key=lambda measured: measured[2])[0]]
    if not curve:
        return StackThroughput(
            1, precisions[0], alone, math.inf, (), "there is no memory for a stack"
        )
    size, precision, stacked = min(curve, key=lambda measured: measured[2])
    reason = (
        f"{1e6 * stacked:,.0f} microseconds of an update a trial in stacks of {size} ({precision})"
    )
    return StackThroughput(size, precision, alone, stacked, tuple(curve), reason)


def seconds_per_update(recipe: Recipe) -> float:
    """Seconds per update of a single training."""
    built = build_training(recipe)
    return _fastest(built.update, clock_of(built.placement))


def clock_of(placement: Placement) -> Callable[[], float]:
    """The clock for timing a step: this process's CPU time where one thread does all the work,
    which other processes do not disturb; else wall time."""
    return (
        time.process_time
        if placement.device.type == "cpu" and placement.threads == 1
        else time.perf_counter
    )


def _of_stack(recipes: Sequence[Recipe], precision: str, clock: Callable[[], float]) -> float:
    """Seconds per update and trial."""
    population = Population(recipes, precision=precision)
    return _fastest(population.step, clock) / len(recipes)


def _fastest(step: Callable[[int], object], clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few steps: the others were disturbed by the machine."""
    fastest, spent, n = math.inf, 0.0, 0
    while n < 5 or (spent < _SECONDS and n < 50):
        began = clock()
        step(n)
        took = clock() - began
        if n:  # the first sets things up
            fastest, spent = min(fastest, took), spent + took
        n += 1
        if spent > 4 * _SECONDS:
            break
    return fastest


def _has_narrow(device: str) -> bool:
    flags = machine.instruction_sets()
    return device == "cpu" and ("amx_bf16" in flags or "avx512_bf16" in flags)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
