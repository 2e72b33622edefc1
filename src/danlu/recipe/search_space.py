"""A search space: its dimensions, and the values that a trial may have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True)
class Dimension:
    """One option that is searched.

    `choices` are plain data, of a choice. `low`, `high` (both may be taken) and `step` (None: any)
    are of integers and floats; `log` spreads them by their logarithm. `when` holds, by the name of
    another dimension, the choices with which this one takes part."""

    name: str
    kind: Literal["choice", "integer", "float"]
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether this dimension is searched, given the values of the dimensions before it."""
        return all(
            name in values and canonical(values[name]) in wanted
            for name, wanted in self._canonical_conditions.items()
        )

    @cached_property
    def _canonical_choices(self) -> frozenset[str]:
        return frozenset(map(canonical, self.choices))

    @cached_property
    def _canonical_conditions(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(map(canonical, wanted)) for name, wanted in self.when.items()}

    def holds(self, value: Any) -> bool:
        """Whether a trial may have `value` here."""
        if self.kind == "choice":
            return canonical(value) in self._canonical_choices
        if isinstance(value, bool) or not isinstance(
            value, int if self.kind == "integer" else int | float
        ):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and math.isclose(steps, round(steps), abs_tol=1e-6)

    @property
    def grid_size(self) -> int:
        """How many values it has; 0 for a range without a step, whose values are not listed."""
        if self.kind == "choice":
            return len(self.choices)
        if self.step is None:
            return 0
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def grid(self) -> tuple[Any, ...]:
        """All `grid_size` values. Of a range they may be very many."""
        if self.kind == "choice":
            return self.choices
        return tuple(self.at(number) for number in range(self.grid_size))

    def at(self, number: int) -> Any:
        """The value `number` steps above `low`."""
        if self.kind == "integer":
            return int(self.low) + number * int(self.step or 1)
        return min(self.low + number * float(self.step or 0.0), self.high)

    def as_dict(self) -> dict[str, Any]:
        """The dimension as plain data."""
        range_values = {"low": self.low, "high": self.high, "step": self.step, "log": self.log}
        kind_values = {"choices": list(self.choices)} if self.kind == "choice" else range_values
        when = {name: list(choices) for name, choices in self.when.items()}
        return {
            "name": self.name,
            "kind": self.kind,
            **kind_values,
            **({"when": when} if when else {}),
        }


Space = tuple[Dimension, ...]  # a dimension comes after those that its `when` names


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of plain data are equal; true is not 1, and 1 is 1.0.

    >>> same_value(1, 1.0), same_value(True, 1)
    (True, False)
    """
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """A text that equal values of plain data share; true is not 1, and 1 is 1.0.

    >>> canonical(1) == canonical(1.0), canonical(True) == canonical(1)
    (True, False)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return repr(float(value))
        except OverflowError:  # a whole number beyond the floats
            return repr(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def contains_point(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether `values` is a point of the space: one value for each active dimension, and no other.

    >>> rate = Dimension("rate", "float", low=0.1, high=1.0)
    >>> contains_point((rate,), {"rate": 0.5}), contains_point((rate,), {"rate": 2.0})
    (True, False)
    """
    wanted = [dimension for dimension in space if dimension.active(values)]
    return {dimension.name for dimension in wanted} == set(values) and all(
        dimension.holds(values[dimension.name]) for dimension in wanted
    )
