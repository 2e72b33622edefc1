"""Turns: work that waits in line for the event loop, a few pieces of it in each round.

The event loop runs everything that is ready before it looks at the network again. Where hundreds of
requests are ready at once, a probe of /healthz would wait for all of them. What costs more than a
few microseconds therefore waits for its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A line of callbacks, of which each round of the event loop runs the first `at_a_time`.

    >>> async def count() -> list[int]:
    ...     turns, order = Turns(at_a_time=1), []
    ...     for number in range(3):
    ...         turns.add(lambda number=number: order.append(number))
    ...     await turns.wait()
    ...     return order
    >>> asyncio.run(count())
    [0, 1, 2]
    """

    def __init__(self, at_a_time: int) -> None:
        self.at_a_time = at_a_time
        self._line: deque[Callable[[], None]] = deque()
        self._is_running = False

    def add(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it is its turn."""
        self._line.append(callback)
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    async def wait(self) -> None:
        """Wait until it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(lambda: _end_wait(turn))
        await turn

    def _run(self) -> None:
        for _ in range(min(self.at_a_time, len(self._line))):
            self._line.popleft()()
        self._is_running = bool(self._line)
        if self._is_running:
            asyncio.get_running_loop().call_soon(self._run)


def _end_wait(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # a caller that was cancelled waits no longer
        turn.set_result(None)
