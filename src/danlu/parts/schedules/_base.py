"""The contract of a schedule, and the linear warm-up that is put before any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, Protocol


class Schedule(Protocol):
    """schedule(step) -> float in [0, 1], the factor on the learning rate; step counts from 0.

    A pure function of the step, unless it is a `ScoreSchedule`.
    """

    def __call__(self, step: int, /) -> float: ...


class ScoreSchedule(ABC):
    """A schedule that also depends on validation scores (reduce on plateau).

    `observe` is called after every evaluation; `state` goes into the checkpoint.
    """

    @abstractmethod
    def __call__(self, step: int, /) -> float:
        """The factor on the learning rate at `step`, in [0, 1]."""

    @abstractmethod
    def observe(self, score: float | None, better: Literal["higher", "lower"]) -> None:
        """Take the validation score of an evaluation; None where it is undefined."""

    @abstractmethod
    def state(self) -> dict[str, object]:
        """JSON values from which `load` restores the schedule."""

    @abstractmethod
    def load(self, state: Mapping[str, object]) -> None:
        """Restore what `state` returned."""


class WarmUp:
    """A linear warm-up before a schedule, which then sees the steps that remain.

    >>> schedule = WarmUp(3, lambda step: 1.0)
    >>> [schedule(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, warmup_steps: int, inner: Schedule) -> None:
        self.warmup_steps = warmup_steps
        self.inner = inner

    def __call__(self, step: int, /) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1) * self.inner(0)
        return self.inner(step - self.warmup_steps)


class ScoreWarmUp(ScoreSchedule):
    """The same before a schedule that depends on scores, which it hands on."""

    def __init__(self, warmup_steps: int, inner: ScoreSchedule) -> None:
        self.inner = inner
        self.warmed = WarmUp(warmup_steps, inner)

    def __call__(self, step: int, /) -> float:
        return self.warmed(step)

    def observe(self, score: float | None, better: Literal["higher", "lower"]) -> None:
        self.inner.observe(score, better)

    def state(self) -> dict[str, object]:
        return self.inner.state()

    def load(self, state: Mapping[str, object]) -> None:
        self.inner.load(state)


def with_warmup(schedule: Schedule | ScoreSchedule, steps: int) -> Schedule | ScoreSchedule:
    """The schedule after a linear warm-up of `steps` steps (0: none)."""
    if isinstance(schedule, ScoreSchedule):
        return ScoreWarmUp(steps, schedule)
    return WarmUp(steps, schedule)
