"""A chart as data: panels with axes and marks, which `svg` and `png` draw alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from danlu.reporting.study_data import Bilingual

Text = Bilingual | str
# What a mark means; how it looks is the renderer's matter. s0 to s9 are series side by side, r0 to
# r9 go from worst to best.
Role = str
SERIES = 10
SHADES = 10


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with ticks as (value, label); `log`: a logarithmic one."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    label: Text = ""
    log: bool = False

    def share(self, value: float) -> float:
        """The position of a value: 0 at `low`, 1 at `high`; values outside are moved to the nearer
        end.

        >>> Axis(0.0, 10.0).share(2.5), Axis(1.0, 100.0, log=True).share(10.0)
        (0.25, 0.5)
        """
        if self.log:
            low, high, value = (
                math.log(self.low),
                math.log(self.high),
                math.log(max(value, self.low)),
            )
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Points:
    """Dots at (x, y); `trials` are the numbers of their trials."""

    x: Sequence[float]
    y: Sequence[float]
    role: Role
    trials: Sequence[int] = ()
    roles: Sequence[Role] = ()  # of single dots, instead of `role`


@dataclass(frozen=True)
class Line:
    """A polyline; with `steps`, each y lasts until the next x."""

    x: Sequence[float]
    y: Sequence[float]
    role: Role
    trial: int | None = None
    steps: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two lines."""

    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    role: Role


@dataclass(frozen=True)
class Bar:
    """A horizontal bar from the left edge to x, centred at y, with a thickness in units of the y
    axis and a text at its end."""

    x: float
    y: float
    thickness: float
    role: Role
    caption: str = ""


@dataclass(frozen=True)
class Label:
    """A text at (x, y)."""

    x: float
    y: float
    text: Text
    anchor: Literal["start", "middle", "end"] = "middle"
    above: int = 0  # pixels it is raised by


@dataclass(frozen=True)
class Rule:
    """A vertical line at x over the whole height: an axis of parallel coordinates."""

    x: float


Mark = Points | Line | Band | Bar | Label | Rule


@dataclass(frozen=True)
class Panel:
    """One coordinate system with its marks."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    title: Text = ""
    grid: bool = True


@dataclass(frozen=True)
class Figure:
    """Panels in rows of `columns`. `name` is its file name and its id in the page; `legend`
    explains roles."""

    name: str
    title: Bilingual
    caption: Bilingual
    panels: Sequence[Panel]
    columns: int = 1
    height: int = 300  # pixels of a panel with its labels
    legend: Sequence[tuple[Role, Text]] = ()
    left: int = 64  # pixels for the labels of the y axis
    notes: Sequence[Bilingual] = field(default=())


def axis(
    values: Iterable[float],
    label: Text = "",
    *,
    log: bool = False,
    whole: bool = False,
    room: float = 0.04,
) -> Axis:
    """An Axis that contains all finite values, with round ticks. `whole`: ticks at integers only.
    `room`: the margin at each end, as a share of the range."""
    finite = [float(value) for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0) if not log else (1.0, 10.0)
    if log:
        if low == high:
            low, high = low / 2, high * 2
        more = (high / low) ** room
        return Axis(low / more, high * more, log_ticks(low / more, high * more), label, True)
    if low == high:
        slack = abs(low) * 0.1 or 0.5
        low, high = low - slack, high + slack
    more = (high - low) * room
    return Axis(low - more, high + more, linear_ticks(low - more, high + more, whole), label)


def linear_ticks(
    low: float, high: float, whole: bool = False, most: int = 6
) -> tuple[tuple[float, str], ...]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], with their labels.

    >>> linear_ticks(0, 10, most=2)
    ((0.0, '0'), (5.0, '5'), (10.0, '10'))
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.75)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple((index * step, _round(index * step, digits)) for index in range(first, last + 1))


def _round(value: float, digits: int) -> str:
    if abs(value) >= 1e9 or digits > 5:
        return f"{value:.3g}"
    for size, mark in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e6 if mark == 'M' else 1e3):.5g}{mark}"
    return f"{value + 0.0:.{digits}f}"


def log_ticks(low: float, high: float, most: int = 6) -> tuple[tuple[float, str], ...]:
    """Powers of ten within [low, high], with 2 and 5 times them where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        values = [value for value in values if low <= value <= high]
        if len(values) <= most:
            break
    else:
        every = -(-len(values) // most)
        values = values[::every]
    if len(values) < 2:
        values = [low, high]
    return tuple(
        (
            value,
            f"{value:g}"
            if 1e-4 <= value < 1e4
            else f"{value:.3g}"
            if value < 1e4
            else _round(value, 0),
        )
        for value in values
    )


def category_axis(names: Sequence[str], label: Text = "") -> Axis:
    """An Axis of names, one at each integer from 0."""
    return Axis(
        -0.5,
        max(len(names), 1) - 0.5,
        tuple((float(index), name) for index, name in enumerate(names)),
        label,
    )


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0 ... count - 1, evenly spaced, with the first and the last.

    >>> thinned(9, 3)
    [0, 4, 8]
    """
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})
