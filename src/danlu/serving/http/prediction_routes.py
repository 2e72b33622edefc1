"""POST /v1/predict and /v1/models/NAME/predict: the quick route. The body goes to the worker as it came; nothing of it is looked at here.

Whether a request may wait is decided before its body is read (danlu.serving.pool.admission), so
that being turned away costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from danlu.serving.refusals import Refusal

if TYPE_CHECKING:
    from danlu.serving.http.security import Seen
    from danlu.serving.pool.pool import Pool, Served

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")


async def refuse(send: _Send, refusal: Refusal, retry: int = 0, close: bool = False) -> None:
    """Answer with a refusal."""
    headers = []
    if retry:
        headers.append((b"retry-after", b"%d" % retry))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if close or refusal.status == 413:  # what follows of the body is not worth reading
        headers.append(_CLOSE)
    await answer(send, refusal.status, refusal.body(), headers)


async def answer(
    send: _Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with JSON."""
    head = [_JSON, (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Predicting:
    """The route."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.most_body = pool.settings.most_body
        self.by_url = {
            f"/v1/models/{name}/predict".encode(): served for name, served in pool.models.items()
        }
        self.by_url[b"/v1/predict"] = next(iter(pool.models.values()))
        self._refusals: dict[tuple[int, bool], bytes] = {}

    def turns_away(self, served: Served) -> bytes | None:
        """The whole answer to a request that may not wait; None where it may."""
        retry = self.full(served)
        if not retry:
            return None
        served.counts.answers[503] += 1
        draining = self.pool.draining
        if (retry, draining) not in self._refusals:
            self._refusals[retry, draining] = _busy(_ENDING if draining else _FULL, retry, draining)
        return self._refusals[retry, draining]

    def full(self, served: Served) -> int:
        """0 where a request may wait, else the seconds after which to ask again."""
        pool = self.pool
        if pool.draining:
            return 1
        return served.turns_away() or int(pool.held_bytes > pool.settings.queue_bytes)

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send, seen: Seen
    ) -> None:
        pool = self.pool
        try:
            served = pool.find(_model(scope["path"]))
            if retry := self.full(served):
                served.counts.answers[503] += 1
                await refuse(send, _FULL if not pool.draining else _ENDING, retry, pool.draining)
                return
            seconds = self.seconds(seen)
            body = await self._body(receive, seen)
            if body is None:
                return
        except Refusal as refusal:
            await refuse(send, refusal)
            return
        await self._ask(scope, send, served, seen, body, seconds)

    async def _ask(
        self,
        scope: Any,
        send: _Send,
        served: Served,
        seen: Seen,
        body: bytes,
        seconds: float | None,
    ) -> None:
        pool = self.pool
        asked = pool.begin(served, seen.kind.decode("latin-1"), body, seconds)
        assert asked.future is not None
        connection = scope.get("danlu.connection")
        if connection is not None:
            connection.waits_for = asked.future  # set when the client goes away
        try:
            status, told = await asked.future
        except asyncio.CancelledError:
            status = 0
            raise
        finally:
            pool.leave(asked)
            if connection is not None:
                connection.waits_for = None
        if status:
            await answer(send, status, told, [_CLOSE] if pool.draining else None)

    def check(self, seen: Seen) -> None:
        """Raises Refusal for a body that its head tells will not be read."""
        if seen.encoding not in (b"", b"identity"):
            raise Refusal(
                "a compressed body is not read.",
                status=415,
                hint="send it without Content-Encoding",
            )
        if seen.length and (
            not seen.length.isdigit() or len(seen.length) > 18 or int(seen.length) > self.most_body
        ):
            raise _too_large(self.most_body)

    def seconds(self, seen: Seen) -> float | None:
        """The deadline that a request sets itself."""
        return _seconds(seen.deadline)

    async def _body(self, receive: _Receive, seen: Seen) -> bytes | None:
        """The whole body; None where the client went away. Raises Refusal where it is too large."""
        most = self.most_body
        self.check(seen)
        message = await receive()
        if message["type"] != "http.request":
            return None
        if not message.get("more_body"):
            if len(message["body"]) > most:
                raise _too_large(most)
            return message["body"]
        return await self._rest(receive, message["body"], most)

    async def _rest(self, receive: _Receive, first: bytes, most: int) -> bytes | None:
        held = bytearray(first)
        self.pool.held_bytes += len(held)
        counted = len(held)
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                held += message.get("body", b"")
                self.pool.held_bytes += len(held) - counted
                counted = len(held)
                if counted > most:
                    raise _too_large(most)
                if self.pool.held_bytes > self.pool.settings.queue_bytes:
                    raise _FULL
                if not message.get("more_body"):
                    return bytes(held)
        finally:
            self.pool.held_bytes -= counted


def _model(path: str) -> str | None:
    """The model that a path ending in /predict names; None where it names none. Raises Refusal for
    a path that is none."""
    if path == "/v1/predict":
        return None
    parts = path.split("/")
    if len(parts) != 5 or parts[2] != "models":
        raise Refusal(
            "there is no such path.", status=404, hint="POST /v1/predict or /v1/models/NAME/predict"
        )
    return parts[3]


def _seconds(deadline: bytes) -> float | None:
    if not deadline:
        return None
    if not deadline.isdigit() or len(deadline) > 12 or int(deadline) == 0:
        raise Refusal(
            "X-Deadline-Ms is a whole number of milliseconds above 0.", field="X-Deadline-Ms"
        )
    return int(deadline) / 1000


def _too_large(most: int) -> Refusal:
    return Refusal(
        f"the body is larger than the {most:,} bytes that are read.",
        status=413,
        hint="send fewer rows in a request",
    )


def _busy(refusal: Refusal, retry: int, close: bool) -> bytes:
    from danlu.serving.http.fast_path import whole

    return whole(
        503,
        refusal.body(),
        b"retry-after: %d\r\n" % retry + (b"connection: close\r\n" if close else b""),
    )


_FULL = Refusal(
    "the server is full.", status=503, hint="ask again after the seconds of Retry-After"
)
_ENDING = Refusal(
    "the server is about to end.",
    status=503,
    hint="ask again in a second: another one may have taken over",
)
