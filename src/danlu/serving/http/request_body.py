"""The body of a request as it arrives: bounded, counted among the bytes of all bodies, in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.compat.uvicorn import SCOPE_KEY
from danlu.serving.http.responses import full, too_large

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

    from danlu.serving.http.connection import Connection
    from danlu.serving.http.turns import Turns
    from danlu.serving.pool.pool import Pool

BODY_KEY = "danlu.body"  # the key of an ASGI scope under which its RequestBody is


class RequestBody:
    """An ASGI receive.

    It refuses a body longer than `most_body`, however it is framed, and lets only a few bodies be
    read on in each round of the event loop. Its bytes count in `pool.body_bytes` until `release`:
    where the connection counts them as they arrive, they are those of the connection.

    arrived   bytes of the body that have been received
    """

    def __init__(self, receive: Receive, scope: Scope, pool: Pool, turns: Turns) -> None:
        self.receive = receive
        self.pool = pool
        self.turns = turns
        self.connection: Connection | None = scope.get(SCOPE_KEY)
        self.arrived = 0
        self._counted = 0
        scope[BODY_KEY] = self

    async def __call__(self) -> Message:
        """The next message. Raises Refusal where the body is too large, or too many bytes of
        bodies are in memory."""
        if self.arrived:
            await self.turns.wait()
        message = await self.receive()
        size = len(message.get("body", b""))
        self.arrived += size
        if self.connection is None:
            self._counted += size
            self.pool.body_bytes += size
            if size and self.pool.body_bytes > self.pool.settings.queue_bytes:
                raise full()
        elif self.connection.is_refused:
            raise full()
        if self.arrived > self.pool.settings.most_body:
            raise too_large(self.pool.settings.most_body)
        return message

    def release(self) -> None:
        """Count the bytes no more: they are in memory no longer, or somebody else counts them."""
        self.pool.body_bytes -= self._counted
        self._counted = 0
        if self.connection is not None:
            self.connection.release_body()
