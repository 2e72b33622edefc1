"""What is counted of a served model: requests, rows, seconds, workers replaced."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """How many values fall into each bucket, and their sum.

    >>> seconds = Histogram([0.1, 1.0])
    >>> for value in (0.05, 0.1, 3.0):
    ...     seconds.add(value)
    >>> seconds.buckets()
    [('0.1', 2.0), ('1.0', 2.0), ('+Inf', 3.0)]
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, number of values at or below it), as Prometheus writes them."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class RequestCounts:
    """The counters of one model.

    answers          answers by HTTP status
    rows, tokens     rows answered; tokens written
    seconds          from a request's arrival to its answer
    steps            rows answered together
    busy_seconds     seconds that the worker was computing
    replaced         workers replaced, by reason
    asked_again      requests given to another worker after theirs died
    swaps            models opened anew, by result
    """

    def __init__(self) -> None:
        self.answers: defaultdict[int, int] = defaultdict(int)
        self.rows = 0
        self.tokens = 0
        self.seconds = Histogram(SECONDS)
        self.steps = Histogram(ROWS)
        self.busy_seconds = 0.0
        self.replaced: defaultdict[str, int] = defaultdict(int)
        self.asked_again = 0
        self.swaps: defaultdict[str, int] = defaultdict(int)
