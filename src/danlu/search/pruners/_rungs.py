"""The rungs of successive halving, and who falls behind at one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def rungs(first: int, reduction: int, upto: int) -> list[int]:
    """Evaluations at which there is a rung, up to `upto`."""
    found, at = [], first
    while at <= upto:
        found.append(at)
        at *= reduction
    return found


def falls_behind(
    curve: Sequence[float], others: Iterable[Sequence[float]], reduction: int, direction: str
) -> bool:
    """Whether the last score of `curve` is not among the best 1/reduction of those that came as far
    (the best alone while they are few)."""
    sign = 1.0 if direction == "higher" else -1.0
    came = len(curve)
    own = sign * curve[-1]
    reached = [sign * other[came - 1] for other in others if len(other) >= came]
    if not reached:
        return False
    places = max((len(reached) + 1) // reduction, 1)
    return sum(other > own for other in reached) >= places
