"""A connection: uvicorn's HTTP protocol (httptools) with bounds on what a client may take its time with.

A head larger than allowed is answered 431; a head or a body that comes too slowly 408; more connections than allowed 503. A client that does
not read its answer is let go. A request to a model that is full is told so as soon as its head is read, before any task is made for it: under
three times the load that can be met, two requests of three must cost next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from danlu.serving.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.predicting import Predicting
    from danlu.serving.settings import Settings

_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


def bare(status: int, message: str, retry: int = 0) -> bytes:
    """A whole answer after which the connection is closed."""
    body = Refusal(message, status=status).body()
    again = f"retry-after: {retry}\r\n" if retry else ""
    first = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n"
    head = f"{first}content-length: {len(body)}\r\n{again}connection: close\r\n\r\n"
    return head.encode() + body


class _Answered:
    """Stands for a request that was answered before its body came: what comes of it is passed over."""

    response_complete = True
    disconnected = False
    message_event = asyncio.Event()


_ANSWERED = _Answered()


class Connection(HttpToolsProtocol):
    """One connection. `bounds` and `predicting` are set by `bounded`."""

    bounds: Settings
    predicting: Predicting | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waits_for: asyncio.Future[tuple[int, bytes]] | None = None
        self.reading_since: float | None = time.monotonic()  # when a request began to come; None between two
        self.in_head = True
        self.head = 0
        self.touched = time.monotonic()
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
        self.touched = time.monotonic()
        if self.in_head:
            if self.reading_since is None:
                self.reading_since = self.touched
            self.head += len(data)
        super().data_received(data)
        if self.in_head and self.head > self.bounds.most_header and self.parser is not None:
            self._end(bare(431, f"the head of the request is larger than {self.bounds.most_header:,} bytes."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["danlu.connection"] = self  # type: ignore[typeddict-unknown-key]
        self.in_head = True

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.head = 0
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > self.bounds.most_header:
            self._end(bare(431, f"the head of the request is larger than {self.bounds.most_header:,} bytes."))
            return
        if not self._turned_away():
            super().on_headers_complete()

    def _turned_away(self) -> bool:
        """Whether the request was told that the server is full."""
        if self.predicting is None or not (self.cycle is None or self.cycle.response_complete):
            return False
        told = self.predicting.turns_away(self.parser.get_method(), self.url)
        if told is None:
            return False
        self.transport.write(told)
        self.cycle = _ANSWERED  # type: ignore[assignment]
        if b"connection: close" in told or not self.parser.should_keep_alive():
            self.transport.close()
        return True

    def on_message_complete(self) -> None:
        super().on_message_complete()
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
        elif self.cycle is _ANSWERED and now - self.touched > self.bounds.idle_seconds:
            self.transport.close()

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            if answer and (self.cycle is None or self.cycle.response_complete or not self.cycle.response_started):
                self.transport.write(answer)
            self.transport.close()


def bounded(settings: Settings, predicting: Predicting | None = None) -> type[Connection]:
    """The class of connections of a server; `predicting` tells which requests are turned away."""
    return type("BoundedConnection", (Connection,), {"bounds": settings, "predicting": predicting})
