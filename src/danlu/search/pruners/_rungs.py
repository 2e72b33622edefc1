"""The rungs of successive halving, and who falls behind at one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def rungs(first: int, reduction: int, last: int) -> list[int]:
    """Evaluations at which there is a rung, up to `upto`."""
    evaluations, at = [], first
    while at <= last:
        evaluations.append(at)
        at *= reduction
    return evaluations


def falls_behind(
    curve: Sequence[float], others: Iterable[Sequence[float]], reduction: int, direction: str
) -> bool:
    """Whether the last score of `curve` is not among the best 1/reduction of those that came as far
    (the best alone while they are few)."""
    sign = 1.0 if direction == "higher" else -1.0
    evaluation = len(curve)
    own_score = sign * curve[-1]
    reached = [sign * other[evaluation - 1] for other in others if len(other) >= evaluation]
    if not reached:
        return False
    places = max((len(reached) + 1) // reduction, 1)
    return sum(other > own_score for other in reached) >= places
