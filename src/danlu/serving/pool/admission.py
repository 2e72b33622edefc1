"""Whether one more request may wait: by the time it would wait, not by a count alone.

Of every step a worker tells how many rows it had and how long it took. A line through the latest
ones (older ones count less) says what a step costs by itself and what a row costs; with the rows
that wait already it says when a row that comes now would be answered. Where that is later than what
the server promises, the request is turned away at once, before its body is read, with the time
after which to ask again: those that are accepted are answered in time, however many come."""

from __future__ import annotations

import math

_FORGETS = 0.97  # what a step counts after the next one, for what a row costs more than a step
_RECENT = 0.1  # what the latest step counts for how quick the machine is now
_SUDDEN = (
    3.0  # times what was expected that one step may say: a stall, or an odd request, is no new pace
)
_SURE = 3.0  # weight of steps from which on something is expected
_ROWS_SPREAD = 0.5  # rows of standard deviation below which no line is drawn


class Pace:
    """What rows cost: `fixed` seconds a step and `each` seconds a row."""

    def __init__(self) -> None:
        self.fixed = 0.0
        self.each = math.inf  # until a step was seen
        self._weight = self._n = self._t = self._nn = self._nt = 0.0
        self._rows_now = self._seconds_now = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`."""
        if rows <= 0:
            return
        if self._weight >= _SURE:
            seconds = min(seconds, _SUDDEN * self.seconds(rows, rows))
        keep = _FORGETS
        self._weight = keep * self._weight + 1
        self._n = keep * self._n + rows
        self._t = keep * self._t + seconds
        self._nn = keep * self._nn + rows * rows
        self._nt = keep * self._nt + rows * seconds
        recent = 1.0 - max(_RECENT, 1 / self._weight)
        self._rows_now = recent * self._rows_now + (1 - recent) * rows
        self._seconds_now = recent * self._seconds_now + (1 - recent) * seconds
        n, t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - n * n
        if spread > _ROWS_SPREAD**2:
            slope = (self._nt / self._weight - n * t) / spread
            self.each = max(slope, 0.002 * t / n)
        n, t = self._rows_now, self._seconds_now
        self.each = min(
            self.each, t / n
        )  # where all steps are of one size, the slope that was seen before holds on
        self.fixed = max(t - self.each * n, 0.0)

    def seconds(self, rows: float, together: float) -> float:
        """How long `rows` rows take in steps of at most `together`."""
        if not self._weight:
            return 0.0
        return (
            rows * self.each + math.ceil(rows / max(together, 1)) * self.fixed if rows > 0 else 0.0
        )


class Admission:
    """The door of one model. `waiting` counts requests, `rows` their rows as far as they are known,
    `bytes` their bodies."""

    def __init__(
        self, longest_wait: float, most: int, together: int, most_rows: int = 1 << 30
    ) -> None:
        self.longest_wait = longest_wait
        self.most_rows = most_rows
        self.most = most
        self.together = together
        self.pace = Pace()
        self.waiting = 0
        self.rows = 0.0
        self._bytes_of_row = 0.0

    def rows_of(self, size: int) -> float:
        """Rows that a body of so many bytes is thought to hold: by what bodies have held, and at
        least one."""
        return (
            min(max(1.0, size / self._bytes_of_row), self.most_rows) if self._bytes_of_row else 1.0
        )

    def enter(self, rows: float) -> None:
        """A request more waits."""
        self.waiting += 1
        self.rows += rows

    def leave(self, rows: float) -> None:
        """A request has been answered, or nobody waits for it any more."""
        self.waiting -= 1
        self.rows = max(self.rows - rows, 0.0) if self.waiting else 0.0

    def learn_size(self, rows: int, size: int) -> None:
        """A body of so many bytes held so many rows."""
        if rows > 0:
            found = size / rows
            self._bytes_of_row = (
                found if not self._bytes_of_row else 0.98 * self._bytes_of_row + 0.02 * found
            )

    def expected(self, delay: float = 0.0) -> float:
        """Seconds until a row that comes now is answered; `delay`: until a worker is there."""
        return delay + self.pace.seconds(self.rows + 1, self.together)

    def turns_away(self, delay: float = 0.0) -> int:
        """0 where one more may wait, else the seconds after which to ask again (at least 1)."""
        if self.waiting == 0 and delay == 0:
            return 0  # a model that is slow for one row is still asked
        expected = self.expected(delay)
        if expected <= self.longest_wait and self.waiting < self.most:
            return 0
        return max(1, math.ceil(min(expected - self.longest_wait, 3600)))
