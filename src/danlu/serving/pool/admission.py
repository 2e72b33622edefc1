"""Whether one more request may wait: decided by the time that it would wait, not by a count alone.

A worker reports of every step how many rows it had and how long it took. A straight line fitted to
the recent steps (older ones weigh less) gives the cost of a step and the cost of a row. With the
rows that wait already, it predicts when a row that arrives now would be answered. Where that is
later than the server promises, the request is refused at once, before its body is read, with the
seconds after which to ask again. So requests that are accepted are answered in time, however many
arrive.
"""

from __future__ import annotations

import math

_DECAY = 0.97  # how much a step weighs after the next one, in the fit of the line
_RECENT_WEIGHT = 0.1  # weight of the newest step in the averages that follow the present speed
# One step may report at most so many times the predicted seconds: a stall, or one odd request, does
# not mean that the model has become slow.
_LARGEST_SURPRISE = 3.0
_MIN_WEIGHT = 3.0  # weight of the steps seen from which on their seconds are predicted
_MIN_SPREAD = 0.5  # standard deviation of the rows of steps below which no line is fitted


class Pace:
    """What rows cost: `per_step` seconds a step and `per_row` seconds a row.

    >>> pace = Pace()
    >>> for _ in range(10):
    ...     pace.learn(rows=10, seconds=0.05)
    >>> round(pace.seconds(rows=100, step_rows=10), 9)
    0.5
    """

    def __init__(self) -> None:
        self.per_step = 0.0
        self.per_row = math.inf  # until a step has been seen
        # Sums over the steps, each weighted by _DECAY ** age: of 1, rows n, seconds t, n*n, n*t.
        self._weight = self._n = self._t = self._nn = self._nt = 0.0
        self._rows_now = self._seconds_now = 0.0  # moving averages over the newest steps

    def learn(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`."""
        if rows <= 0:
            return
        if self._weight >= _MIN_WEIGHT:
            seconds = min(seconds, _LARGEST_SURPRISE * self.seconds(rows, rows))
        self._weight = _DECAY * self._weight + 1
        self._n = _DECAY * self._n + rows
        self._t = _DECAY * self._t + seconds
        self._nn = _DECAY * self._nn + rows * rows
        self._nt = _DECAY * self._nt + rows * seconds
        keep = 1.0 - max(_RECENT_WEIGHT, 1 / self._weight)
        self._rows_now = keep * self._rows_now + (1 - keep) * rows
        self._seconds_now = keep * self._seconds_now + (1 - keep) * seconds
        self._fit()

    def _fit(self) -> None:
        n, t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - n * n
        if variance > _MIN_SPREAD**2:
            slope = (self._nt / self._weight - n * t) / variance
            self.per_row = max(slope, 0.002 * t / n)
        # Where all recent steps have one size, no slope can be fitted: the last one stays, bounded
        # by what a row can cost at most.
        self.per_row = min(self.per_row, self._seconds_now / self._rows_now)
        self.per_step = max(self._seconds_now - self.per_row * self._rows_now, 0.0)

    def seconds(self, rows: float, step_rows: float) -> float:
        """How long `rows` rows take in steps of at most `step_rows`; 0 before any step was seen."""
        if not self._weight or rows <= 0:
            return 0.0
        return rows * self.per_row + math.ceil(rows / max(step_rows, 1)) * self.per_step


class Admission:
    """Admission to one model.

    longest_wait   seconds that a request may wait
    max_waiting    requests that may wait, however quick the model is
    step_rows      rows of a step at most, at present
    max_rows       rows of a request at most
    waiting, rows  requests that wait, and how many rows they are estimated to hold
    """

    def __init__(
        self, longest_wait: float, max_waiting: int, step_rows: int, max_rows: int = 1 << 30
    ) -> None:
        self.longest_wait = longest_wait
        self.max_rows = max_rows
        self.max_waiting = max_waiting
        self.step_rows = step_rows
        self.pace = Pace()
        self.waiting = 0
        self.rows = 0.0
        self._bytes_per_row = 0.0

    def estimate_rows(self, size: int) -> float:
        """How many rows a body of `size` bytes holds, judged by earlier bodies; at least 1."""
        if not self._bytes_per_row:
            return 1.0
        return min(max(1.0, size / self._bytes_per_row), self.max_rows)

    def enter(self, rows: float) -> None:
        """One more request waits, with so many rows."""
        self.waiting += 1
        self.rows += rows

    def leave(self, rows: float) -> None:
        """A request has been answered, or nobody waits for it any more."""
        self.waiting -= 1
        self.rows = max(self.rows - rows, 0.0) if self.waiting else 0.0

    def learn_size(self, rows: int, size: int) -> None:
        """A body of `size` bytes held `rows` rows."""
        if rows <= 0:
            return
        size_of_row = size / rows
        old = self._bytes_per_row
        self._bytes_per_row = 0.98 * old + 0.02 * size_of_row if old else size_of_row

    def expected_wait(self, delay: float = 0.0) -> float:
        """Seconds until a row that arrives now is answered; `delay`: until a worker is ready."""
        return delay + self.pace.seconds(self.rows + 1, self.step_rows)

    def retry_after(self, delay: float = 0.0) -> int:
        """0 where one more request may wait, else the seconds after which to ask again (1 or
        more)."""
        if self.waiting == 0 and delay == 0:
            return 0  # a model that needs too long even for one row still gets one at a time
        wait = self.expected_wait(delay)
        if wait <= self.longest_wait and self.waiting < self.max_waiting:
            return 0
        return max(1, math.ceil(min(wait - self.longest_wait, 3600)))
