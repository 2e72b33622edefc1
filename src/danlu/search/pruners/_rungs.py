"""The rungs of successive halving, and which trials end at one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def rungs(first: int, reduction: int, last: int) -> list[int]:
    """The evaluations up to `last` at which there is a rung.

    >>> rungs(1, 3, 30)
    [1, 3, 9, 27]
    """
    evaluations, at = [], first
    while at <= last:
        evaluations.append(at)
        at *= reduction
    return evaluations


def falls_behind(
    curve: Sequence[float], others: Iterable[Sequence[float]], reduction: int, direction: str
) -> bool:
    """Whether the last score of `curve` is not among the best 1/reduction of those at this
    evaluation.

    While fewer than `reduction` trials have reached the evaluation, only the best one goes on.
    """
    sign = 1.0 if direction == "higher" else -1.0
    evaluation = len(curve)
    own_score = sign * curve[-1]
    reached = [sign * other[evaluation - 1] for other in others if len(other) >= evaluation]
    if not reached:
        return False
    places = max((len(reached) + 1) // reduction, 1)
    return sum(other > own_score for other in reached) >= places
