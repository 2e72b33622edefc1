"""Which learning rates are tried: powers of ten around the own one, then closer to the best."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_GRID = 5  # at most: a factor of 100 to either side


def first_rates(own: float, count: int) -> list[float]:
    """The wide grid: two thirds of `count`, at most five, each ten times the one before, with `own`
    in the middle.

    >>> first_rates(0.01, 5)
    [0.001, 0.01, 0.1, 1.0]
    """
    if own <= 0 or count < 2:
        return [own]
    size = min(_MAX_GRID, count - count // 3)
    return [_round(own * 10.0 ** (index - (size - 1) // 2)) for index in range(size)]


def second_rates(
    tried: Sequence[tuple[float, float | None]], count: int, sign: float
) -> list[float]:
    """The rest of `count` rates, equally spaced in their logarithm within a factor of ten of the
    best rate tried.

    Where the best is an end of the grid, they continue beyond it; where no training has a score,
    towards smaller rates. `tried` are (rate, score) with None for a failed training; `sign` is 1
    where a higher score is better, else -1.
    """
    remaining = count - len(tried)
    if remaining < 1:
        return []
    rates = [rate for rate, _ in tried]
    scored = [(sign * score, -rate) for rate, score in tried if score is not None]
    if not scored:
        return [_round(min(rates) / 10.0 ** (step + 1)) for step in range(remaining)]
    best = -max(scored)[1]
    if best in (min(rates), max(rates)) and len(rates) > 1:
        direction = 1.0 if best == max(rates) else -1.0
        candidates = [best * 10.0 ** (direction * (step + 1) / 2) for step in range(remaining)]
    else:
        upper, lower = (remaining + 1) // 2, remaining // 2
        candidates = [best * 10.0 ** ((step + 1) / (upper + 1)) for step in range(upper)]
        candidates += [best / 10.0 ** ((step + 1) / (lower + 1)) for step in range(lower)]
    return sorted(_round(rate) for rate in candidates)


def best_rate(tried: Sequence[tuple[float, float | None]], sign: float) -> float | None:
    """The rate with the best score, the smaller of equal ones; None where no training has a score.

    >>> best_rate([(0.1, 0.8), (0.01, 0.9), (1.0, None)], sign=1.0)
    0.01
    """
    scored = [(sign * score, -rate) for rate, score in tried if score is not None]
    return -max(scored)[1] if scored else None


def _round(rate: float) -> float:
    """Three digits: the table shows the exact rate."""
    return float(f"{rate:.3g}")
