"""A connection with bounds on what a client may take its time with.

Headers larger than allowed are answered 431, headers or a body that come too slowly 408, more
connections than allowed 503. A client that does not read its answer is disconnected.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from danlu.compat.uvicorn import HttpConnection
from danlu.serving.http.responses import refusal_bytes
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    import asyncio

    from danlu.serving.protocol.settings import Settings


class Connection(HttpConnection):
    """One connection.

    settings       set by a subclass for each server
    waits_for      the answer that an ASGI route waits for: it is set when the client goes away
    reading_since  when the present request began to arrive; None between two requests
    in_headers     whether its headers are still arriving; `header_bytes` of them have arrived
    is_refused     whether it is answered 503 before its body has arrived
    body_bytes     of its body that have arrived and are counted by nobody else
    unread_since   since when the client does not read its answer; None while it reads
    """

    settings: Settings

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waits_for: asyncio.Future[tuple[int, bytes]] | None = None
        self.reading_since: float | None = time.monotonic()
        self.in_headers = True
        self.header_bytes = 0
        self.is_refused = False
        self.body_bytes = 0
        self.unread_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if self.open_connections > self.settings.connections:
            refusal = Refusal("there are as many connections as there may be.", status=503)
            self._close_with(refusal_bytes(refusal, retry=1, close=True))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waits_for is not None and not self.waits_for.done():
            self.waits_for.set_result((0, b""))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.in_headers:
            if self.reading_since is None:
                self.reading_since = time.monotonic()
            self.header_bytes += len(data)
        super().data_received(data)
        too_many = self.header_bytes > self.settings.most_header
        if self.in_headers and too_many and self.is_reading:
            self._refuse_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_headers = True
        self.is_refused = False

    def on_headers_complete(self) -> None:
        self.in_headers = False
        self.header_bytes = 0
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        if size > self.settings.most_header:
            self._refuse_headers()
            return
        self.begin_request()

    def begin_request(self) -> None:
        """Begin a request whose headers have arrived and are small enough."""
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.end_reading()

    def end_reading(self) -> None:
        """A whole request has arrived."""
        self.reading_since = None
        self.in_headers = True

    def release_body(self) -> None:
        """Count the bytes of the body no more."""
        self.body_bytes = 0

    def pause_writing(self) -> None:
        self.unread_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        refusal = Refusal("this is no HTTP request that can be read.")
        self._close_with(refusal_bytes(refusal, close=True))

    def end_if_slow(self, now: float) -> None:
        """Disconnect a client that takes too long; `now` is time.monotonic()."""
        if self.transport is None or self.transport.is_closing():
            return
        settings = self.settings
        if self.unread_since is not None and now - self.unread_since > settings.body_seconds:
            self.transport.abort()
        elif self.reading_since is not None:
            nothing_sent = self.header_bytes == 0 if self.in_headers else self.is_idle
            limit = settings.header_seconds if self.in_headers else settings.body_seconds
            if now - self.reading_since > limit:
                refusal = Refusal("the request came too slowly.", status=408)
                self._close_with(b"" if nothing_sent else refusal_bytes(refusal, close=True))

    def _refuse_headers(self) -> None:
        size = self.settings.most_header
        message = f"the headers of the request are larger than {size:,} bytes."
        self._close_with(refusal_bytes(Refusal(message, status=431), close=True))

    def _close_with(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            if answer and self.may_answer:
                self.transport.write(answer)
            self.transport.close()
