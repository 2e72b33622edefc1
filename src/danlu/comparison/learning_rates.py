"""Which learning rates are tried: a wide net of powers of ten around the contestant's own, then closer around the best of them."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_GRID = 5  # at most: a factor of 100 to either side


def first_rates(own: float, count: int) -> list[float]:
    """The net: two thirds of `count`, five at most, each ten times the one before, `own` in the
    middle."""
    if own <= 0 or count < 2:
        return [own]
    size = min(_MAX_GRID, count - count // 3)
    return [_round(own * 10.0 ** (index - (size - 1) // 2)) for index in range(size)]


def second_rates(
    tried: Sequence[tuple[float, float | None]], count: int, sign: float
) -> list[float]:
    """The rest of `count` rates: evenly (in their logarithm) within a factor of ten of the best one
    tried.

    Where the best is an end of the net they go on beyond it; where none came to a score, towards
    smaller ones. `sign` is 1 where a higher score is better."""
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
    """The rate with the best score, the smaller of equals; None where none came to a score."""
    scored = [(sign * score, -rate) for rate, score in tried if score is not None]
    return -max(scored)[1] if scored else None


def _round(rate: float) -> float:
    """Three digits: what a table shows is what was trained with."""
    return float(f"{rate:.3g}")
