"""A connection: uvicorn's HTTP protocol (httptools) with bounds on what a client may take its time with.

A head larger than allowed is answered 431; a head or a body that comes too slowly 408; more
connections than allowed 503. A client that does not read its answer is let go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from danlu.serving.refusals import Refusal

if TYPE_CHECKING:
    import asyncio

    from danlu.serving.settings import Settings

_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def bare(status: int, message: str, retry: int = 0) -> bytes:
    """A whole answer after which the connection is closed."""
    body = Refusal(message, status=status).body()
    again = f"retry-after: {retry}\r\n" if retry else ""
    first = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n"
    head = f"{first}content-length: {len(body)}\r\n{again}connection: close\r\n\r\n"
    return head.encode() + body


class Connection(HttpToolsProtocol):
    """One connection. `bounds` is set by a subclass of a server's own."""

    bounds: Settings

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waits_for: asyncio.Future[tuple[int, bytes]] | None = None
        self.reading_since: float | None = (
            time.monotonic()
        )  # when a request began to come; None between two
        self.in_head = True
        self.head = 0
        self.unread_since: float | None = None  # when the client stopped reading its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.bounds.connections:
            self._end(bare(503, "there are as many connections as there may be.", 1))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waits_for is not None and not self.waits_for.done():
            self.waits_for.set_result((0, b""))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.in_head:
            if self.reading_since is None:
                self.reading_since = time.monotonic()
            self.head += len(data)
        super().data_received(data)
        if self.in_head and self.head > self.bounds.most_header and self.parser is not None:
            self._end(
                bare(
                    431,
                    f"the head of the request is larger than {self.bounds.most_header:,} bytes.",
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["danlu.connection"] = self  # type: ignore[typeddict-unknown-key]
        self.in_head = True

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.head = 0
        if (
            sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
            > self.bounds.most_header
        ):
            self._end(
                bare(
                    431,
                    f"the head of the request is larger than {self.bounds.most_header:,} bytes.",
                )
            )
            return
        self.begin()

    def begin(self) -> None:
        """The head is here and small enough."""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.message_ended()

    def message_ended(self) -> None:
        """A whole request has come."""
        self.reading_since = None
        self.in_head = True

    def pause_writing(self) -> None:
        self.unread_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._end(bare(400, "this is no HTTP request that can be read."))

    def check(self, now: float) -> None:
        """Let go of a client that takes too long."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.unread_since is not None and now - self.unread_since > self.bounds.body_seconds:
            self.transport.abort()
        elif self.reading_since is not None:
            idle = self.in_head and self.head == 0  # connected, and nothing came
            limit = self.bounds.header_seconds if self.in_head else self.bounds.body_seconds
            if now - self.reading_since > limit:
                self._end(b"" if idle else bare(408, "the request came too slowly."))

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            if answer and (
                self.cycle is None
                or self.cycle.response_complete
                or not self.cycle.response_started
            ):
                self.transport.write(answer)
            self.transport.close()
