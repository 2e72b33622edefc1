"""The quick way of a prediction: from the head of its request to its answer without a task, on the connection itself.

A request to a model that is full is told so as soon as its head is read: under three times the load
that can be met, two requests of three must cost next to nothing. One that may wait is given to the
pool when its body is whole, and its answer goes out in one piece. What is not as plain (a body
without a length, one that waits for 100 Continue, one behind another on the same connection,
another route) goes the usual way, through uvicorn and the Gate; both ways ask the same questions
and give the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.serving.http.connection import Connection
from danlu.serving.http.security import Seen
from danlu.serving.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.http.security import Gate
    from danlu.serving.pool.pool import Asked, Served

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_PHRASES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 413: "Content Too Large", 415: "Unsupported Media Type",
    421: "Misdirected Request", 500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def whole(status: int, body: bytes, more: bytes = b"") -> bytes:
    """An answer as it goes over the wire; `more` are further header lines."""
    if status == 200 and not more:
        return _OK % len(body) + body
    first = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return first.encode() + more + b"\r\n" + body


def whole_request(data: bytes, most_header: int) -> int:
    """How many bytes the one request at the start of `data` has, as its head tells plainly; -1
    where it takes a parser to know."""
    end = data.find(b"\r\n\r\n", 0, most_header)
    head = data[: end + 2].lower()
    at = head.find(b"\r\ncontent-length:")
    if end < 0 or at < 0 or head.count(b"\r\ncontent-length") > 1:
        return -1
    if b"\r\ntransfer-encoding" in head or b"\r\nexpect" in head or b"\r\nupgrade" in head:
        return -1
    if b"\r\nconnection" in head and b"\r\nconnection: keep-alive\r\n" not in head:
        return -1
    size = head[at + 17 : head.find(b"\r\n", at + 2)].strip()
    return end + 4 + int(size) if size.isdigit() and len(size) < 12 else -1


class _Event:
    def set(self) -> None: ...


class _Quick:
    """Stands where uvicorn has the cycle of a request."""

    message_event = _Event()

    def __init__(self) -> None:
        self.response_complete = False
        self.response_started = False
        self.disconnected = False
        self.keep_alive = True


class QuickConnection(Connection):
    """A connection of one server, `gate` its app."""

    gate: Gate

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.quick: Served | None = None  # the model whose request is being read, or answered
        self.mine = _Quick()
        self.seen = Seen()
        self.asked: Asked | None = None
        self.body: list[bytes] = []
        self.size = 0
        self.seconds: float | None = None

    def data_received(self, data: bytes) -> None:
        told = self._turned_away(data)
        if told is None:
            super().data_received(data)
            return
        self.reading_since = None
        self.transport.write(told)
        self.on_response_complete()

    def _turned_away(self, data: bytes) -> bytes | None:
        """The answer to a whole request to a model that is full, which needs no parsing then; None
        for anything else."""
        between = (
            self.in_head
            and not self.head
            and self.asked is None
            and (self.cycle is None or self.cycle.response_complete)
        )
        predicting = self.gate.predicting
        if (
            not between
            or not data.startswith(b"POST ")
            or predicting.pool.draining
            or self.transport.is_closing()
        ):
            return None
        served = predicting.by_url.get(data[5 : data.find(b" HTTP/1.1\r\n", 5, 500)])
        if (
            served is None
            or not predicting.full(served)
            or whole_request(data, self.bounds.most_header) != len(data)
        ):
            return None
        return predicting.turns_away(served)

    def begin(self) -> None:
        """Turn a request away, or begin it."""
        assert self.parser is not None
        served = self.gate.predicting.by_url.get(self.url)
        alone = self.cycle is None or self.cycle.response_complete
        if served is None or not alone or self.parser.get_method() != b"POST":
            super().begin()
            return
        told = self.gate.predicting.turns_away(served)
        if told is not None:
            self._quick()
            self._answer(told, close=b"connection: close" in told)
            return
        seen = self.gate.see(self.headers)
        if not seen.length or self.expect_100_continue:
            super().begin()
            return
        self._quick()
        try:
            self.gate.check(seen, "/v1/predict", True)
            self.gate.predicting.check(seen)
            self.seconds = self.gate.predicting.seconds(seen)
        except Refusal as refusal:
            more = b"www-authenticate: Bearer\r\n" if refusal.status == 401 else b""
            self._refuse(refusal, more)
            return
        self.quick, self.seen = served, seen

    def _quick(self) -> None:
        parser = self.parser
        assert parser is not None
        self.mine = _Quick()
        self.mine.keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self.cycle = self.mine  # type: ignore[assignment] - until a request behind this one has its own

    def on_body(self, body: bytes) -> None:
        if self.quick is None:
            super().on_body(body)
            return
        self.body.append(body)
        self.size += len(body)
        self.gate.predicting.pool.held_bytes += len(body)

    def on_message_complete(self) -> None:
        super().on_message_complete() if self.quick is None else self._give()

    def _give(self) -> None:
        """Give the request to the pool."""
        self.message_ended()
        served, predicting = self.quick, self.gate.predicting
        assert served is not None
        body = self._taken()
        told = predicting.turns_away(served)  # it may have become full while the body came
        if told is not None:
            self._answer(told, close=b"connection: close" in told)
            return
        kind = self.seen.kind.decode("latin-1")
        self.asked = predicting.pool.begin(served, kind, body, self.seconds, self._answered)

    def _taken(self) -> bytes:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.gate.predicting.pool.held_bytes -= self.size
        self.quick, self.body, self.size = None, [], 0
        return body

    def _answered(self, status: int, body: bytes) -> None:
        """The pool's answer."""
        asked, self.asked = self.asked, None
        if asked is not None:
            self.gate.predicting.pool.leave(asked)
        draining = self.gate.predicting.pool.draining
        self._answer(
            whole(status, body, b"connection: close\r\n" if draining else b""), close=draining
        )

    def _refuse(self, refusal: Refusal, more: bytes = b"") -> None:
        close = refusal.status == 413  # what follows of the body is not worth reading
        self._answer(
            whole(
                refusal.status, refusal.body(), more + (b"connection: close\r\n" if close else b"")
            ),
            close,
        )

    def _answer(self, data: bytes, close: bool = False) -> None:
        self.mine.response_complete = True
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if close or not self.mine.keep_alive:
            self.server_state.total_requests += 1
            self.transport.close()
        else:
            self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.quick is not None:
            self._taken()
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self.gate.predicting.pool.leave(asked)
        super().connection_lost(exc)


def connections(gate: Gate) -> type[QuickConnection]:
    """The class of connections of a server."""
    return type("ServedConnection", (QuickConnection,), {"bounds": gate.settings, "gate": gate})
