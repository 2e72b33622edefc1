"""The fast path of predictions and probes: answered on the connection itself, without a task.

A request to a model that is full is refused as soon as its headers are read: under three times the
load that can be met, two requests of three must cost next to nothing. A request that may wait is
given to the pool when its body is whole, and its answer is sent in one piece.

/healthz and /readyz say whether the server lives and can answer: they must not stand in line behind
other requests.

The bytes of every body, on both ways, count in `pool.body_bytes` as they arrive. Where they become
too many, the largest body that has not arrived yet is refused.

What costs more than a small request waits for its turn: more of a large body is read, and more of
what a client sent together (requests behind each other, chunks of a few bytes) is parsed, when all
others had theirs.

Any other request (a body without a length, one that waits for 100 Continue, one behind another on
the same connection, another route) goes the usual way, through uvicorn and SecuredApp. Both ways
make the same checks and give the same answers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from danlu.serving.http.connection import Connection
from danlu.serving.http.request_headers import RequestHeaders, read_headers
from danlu.serving.http.responses import FULL, broken_off, refusal_bytes, response_bytes
from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.http.secured_app import SecuredApp
    from danlu.serving.pool.served_model import PendingRequest, ServedModel


_PIECE = 2048  # bytes that are parsed at once: a few tens of requests, some hundred chunks
_BODY_PIECE = 1 << 15  # bytes of a body, read at once, after which a connection waits for its turn

log = logging.getLogger("danlu.serving")


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
    body          the pieces of the present body, of a request on the fast path
    body_left     bytes of the present body that have not arrived; 0 where that is not known
    unparsed      what was read and waits to be parsed
    seconds       the deadline that the request sets itself
    """

    app: SecuredApp

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model: ServedModel | None = None
        self.request: PendingRequest | None = None
        self.request_headers = RequestHeaders()
        self.body: list[bytes] = []
        self.body_left = 0
        self.unparsed = b""
        self._waits_for_turn = False
        self.seconds: float | None = None

    def data_received(self, data: bytes) -> None:
        if self.unparsed:  # read already when reading was held
            self._keep(data)
            return
        refusal = self._refusal_unparsed(data)
        if refusal is None:
            self._parse(data)
            return
        self.reading_since = None
        self.send_unparsed_answer(refusal)

    def _parse(self, data: bytes) -> None:
        """Parse what one turn allows; the rest waits for the next."""
        size = max(self.body_left, _PIECE)
        if len(data) > size:
            super().data_received(data[:size])
            self._keep(data[size:])
        else:
            super().data_received(data)
            if len(data) > _BODY_PIECE:
                self._wait_for_turn()

    def _keep(self, data: bytes) -> None:
        if self.is_reading and not self.transport.is_closing():
            self.unparsed += data
            self.app.prediction.pool.body_bytes += len(data)
            self._wait_for_turn()

    def _take_unparsed(self) -> bytes:
        data, self.unparsed = self.unparsed, b""
        self.app.prediction.pool.body_bytes -= len(data)
        return data

    def _wait_for_turn(self) -> None:
        """Read on when it is this connection's turn."""
        self.hold_reading()
        if not self._waits_for_turn:
            self._waits_for_turn = True
            self.app.reading.add(self._read_on)

    def _read_on(self) -> None:
        self._waits_for_turn = False
        if not self.is_reading or self.transport.is_closing() or self.unread_since is not None:
            return  # after its end; or until the client reads, see resume_writing
        if not self.unparsed:
            self.let_read()
        elif self.is_reading_wanted:  # else uvicorn wants it later, see on_reading_wanted
            self._parse(self._take_unparsed())
            if not self._waits_for_turn:
                self.let_read()

    def on_reading_wanted(self) -> None:
        self._wait_for_turn()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.hold_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait_for_turn()

    def _refusal_unparsed(self, data: bytes) -> bytes | None:
        """The answer to a whole request to a model that is full; None for anything else. Such a
        request need not be parsed."""
        between_requests = (
            self.in_headers and not self.header_bytes and self.request is None and self.is_idle
        )
        route = self.app.prediction
        if not between_requests or not data.startswith(b"POST "):
            return None
        if self.app.token is not None:  # who may not ask is not told what is served
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
        """Answer a probe, refuse a request, take it on the fast path, or leave it to uvicorn."""
        headers = read_headers(self.headers)
        self.body_left = int(headers.length) if headers.length.isdigit() else 0
        model = self.app.prediction.by_url.get(self.url)
        if self.is_idle and model is not None and self.method == b"POST":
            self._begin_prediction(model, headers)
        elif self.is_idle and self.url in self.app.probes and self.method == b"GET":
            self._answer_probe(headers)
        else:
            super().begin_request()

    def _answer_probe(self, headers: RequestHeaders) -> None:
        if headers.length or headers.framing or self.waits_for_continue:
            super().begin_request()
            return
        self.answer_here()
        try:
            self.app.check(headers, self.url.decode("ascii"), posts=False)
        except Refusal as refusal:
            self.send_answer(refusal_bytes(refusal))
            return
        self.send_answer(response_bytes(*self.app.probes[self.url](headers)))

    def _begin_prediction(self, model: ServedModel, headers: RequestHeaders) -> None:
        route = self.app.prediction
        if route.retry_after(model) and self.app.token is None:
            self._refuse_when_full(model)
            return
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
        if not self._refuse_when_full(model):
            self.model, self.request_headers = model, headers

    def _refuse_when_full(self, model: ServedModel) -> bool:
        """Refuse the present request where its model is full; whether it is."""
        refusal = self.app.prediction.refusal_when_full(model)
        if refusal is None:
            return False
        self.answer_here()
        self.send_answer(refusal, close=b"connection: close" in refusal)
        return True

    def on_body(self, body: bytes) -> None:
        self.body_left = max(self.body_left - len(body), 0)
        if self.is_refused or self.is_idle:  # answered already: the client sends what it began
            return
        pool = self.app.prediction.pool
        self.body_bytes += len(body)
        pool.body_bytes += len(body)
        if self.model is None:
            super().on_body(body)
        else:
            self.body.append(body)
        if pool.body_bytes > pool.settings.queue_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Refuse the largest of the bodies that have not arrived yet."""
        arriving = (
            other
            for other in self.all_connections
            if isinstance(other, FastPathConnection) and not other.in_headers
        )
        largest = max(arriving, key=lambda other: other.body_bytes, default=None)
        if largest is not None and largest.body_bytes:
            largest.refuse_body()

    def refuse_body(self) -> None:
        """Refuse the request whose body is arriving, since bodies take too much memory. The rest of
        it is read and forgotten: a client that is still sending would not see its answer."""
        self.is_refused = True
        if self.model is None:
            self.release_body()
            self.wake_app()
        else:
            self.model.counts.answers[FULL.status] += 1
            self._take_body()
            self.send_answer(refusal_bytes(FULL, retry=1))

    def release_body(self) -> None:
        """Count the bytes of the body no more."""
        self.app.prediction.pool.body_bytes -= self.body_bytes
        super().release_body()

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
        self.release_body()
        self.model, self.body = None, []
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

    def on_response_complete(self) -> None:
        self.release_body()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.model is not None:
            log.info("%s", broken_off("POST", self.url.decode("latin-1"), self.body_bytes))
            self._take_body()
        self.release_body()
        self._take_unparsed()
        self._release()
        super().connection_lost(exc)


def connection_class(app: SecuredApp) -> type[FastPathConnection]:
    """The class of the connections of a server."""
    return type("ServedConnection", (FastPathConnection,), {"settings": app.settings, "app": app})
