"""The fast path of a prediction: answered on the connection itself, without a task.

A request to a model that is full is refused as soon as its headers are read: under three times the
load that can be met, two requests of three must cost next to nothing. A request that may wait is
given to the pool when its body is whole, and its answer is sent in one piece.

Any other request (a body without a length, one that waits for 100 Continue, one behind another on
the same connection, another route) goes the usual way, through uvicorn and SecuredApp. Both ways
make the same checks and give the same answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.serving.http.connection import Connection
from danlu.serving.http.request_headers import RequestHeaders, read_headers
from danlu.serving.http.responses import refusal_bytes, response_bytes
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.http.security import SecuredApp
    from danlu.serving.pool.served_model import PendingRequest, ServedModel


def plain_request_size(data: bytes, max_header: int) -> int:
    """How many bytes the request at the start of `data` has, where its headers say so plainly; -1
    where that takes a parser.

    >>> plain_request_size(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n{}", 4096)
    40
    """
    end = data.find(b"\r\n\r\n", 0, max_header)
    head = data[: end + 2].lower()
    start = head.find(b"\r\ncontent-length:")
    if end < 0 or start < 0 or head.count(b"\r\ncontent-length") > 1:
        return -1
    if b"\r\ntransfer-encoding" in head or b"\r\nexpect" in head or b"\r\nupgrade" in head:
        return -1
    if b"\r\nconnection" in head and b"\r\nconnection: keep-alive\r\n" not in head:
        return -1
    size = head[start + 17 : head.find(b"\r\n", start + 2)].strip()
    return end + 4 + int(size) if size.isdigit() and len(size) < 12 else -1


class FastPathConnection(Connection):
    """A connection of one server.

    app           set by a subclass for each server
    model         the model whose request is being read on the fast path; None otherwise
    request       the request that the pool has of this connection
    body          the pieces of the present body, `body_bytes` in all
    seconds       the deadline that the request sets itself
    """

    app: SecuredApp

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model: ServedModel | None = None
        self.request: PendingRequest | None = None
        self.request_headers = RequestHeaders()
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.seconds: float | None = None

    def data_received(self, data: bytes) -> None:
        refusal = self._refusal_unparsed(data)
        if refusal is None:
            super().data_received(data)
            return
        self.reading_since = None
        self.send_unparsed_answer(refusal)

    def _refusal_unparsed(self, data: bytes) -> bytes | None:
        """The answer to a whole request to a model that is full; None for anything else. Such a
        request need not be parsed."""
        between_requests = (
            self.in_headers and not self.header_bytes and self.request is None and self.is_idle
        )
        route = self.app.prediction
        if not between_requests or not data.startswith(b"POST "):
            return None
        if route.pool.draining or self.transport.is_closing():
            return None
        model = route.by_url.get(data[5 : data.find(b" HTTP/1.1\r\n", 5, 500)])
        if model is None or not route.retry_after(model):
            return None
        if plain_request_size(data, self.settings.most_header) != len(data):
            return None
        return route.refusal_when_full(model)

    def begin_request(self) -> None:
        """Refuse a request, take it on the fast path, or leave it to uvicorn."""
        route = self.app.prediction
        model = route.by_url.get(self.url)
        if model is None or not self.is_idle or self.method != b"POST":
            super().begin_request()
            return
        refusal = route.refusal_when_full(model)
        if refusal is not None:
            self.answer_here()
            self.send_answer(refusal, close=b"connection: close" in refusal)
            return
        headers = read_headers(self.headers)
        if not headers.length or self.waits_for_continue:
            super().begin_request()
            return
        self.answer_here()
        try:
            self.app.check(headers, "/v1/predict", posts=True)
            route.check(headers)
            self.seconds = route.seconds(headers)
        except Refusal as error:
            close = error.status == 413  # the rest of a body that is too large is not read
            self.send_answer(refusal_bytes(error, close=close), close)
            return
        self.model, self.request_headers = model, headers

    def on_body(self, body: bytes) -> None:
        if self.model is None:
            super().on_body(body)
            return
        self.body.append(body)
        self.body_bytes += len(body)
        self.app.prediction.pool.body_bytes += len(body)

    def on_message_complete(self) -> None:
        if self.model is None:
            super().on_message_complete()
        else:
            self.end_reading()
            self._submit(self.model)

    def _submit(self, model: ServedModel) -> None:
        body = self._take_body()
        route = self.app.prediction
        refusal = route.refusal_when_full(model)  # it may have become full while the body came
        if refusal is not None:
            self.send_answer(refusal, close=b"connection: close" in refusal)
            return
        kind = self.request_headers.kind.decode("latin-1")
        self.request = route.pool.submit(model, kind, body, self.seconds, self._on_answer)

    def _take_body(self) -> bytes:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.app.prediction.pool.body_bytes -= self.body_bytes
        self.model, self.body, self.body_bytes = None, [], 0
        return body

    def _on_answer(self, status: int, body: bytes) -> None:
        self._release()
        draining = self.app.prediction.pool.draining
        header_lines = b"connection: close\r\n" if draining else b""
        self.send_answer(response_bytes(status, body, header_lines), close=draining)

    def _release(self) -> None:
        request, self.request = self.request, None
        if request is not None:
            self.app.prediction.pool.release(request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.model is not None:
            self._take_body()
        self._release()
        super().connection_lost(exc)


def connection_class(app: SecuredApp) -> type[FastPathConnection]:
    """The class of the connections of a server."""
    return type("ServedConnection", (FastPathConnection,), {"settings": app.settings, "app": app})
