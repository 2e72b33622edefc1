"""What stands before every route: who may ask, by which name, and how much; then the quick route, or the others.

A server on this machine's own address is asked by pages of other sites too, whose scripts a browser
runs here: so the name it is called by (Host) must be one of its own (DNS rebinding), and what a
page of another origin posts is refused. No answer allows another origin to read it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from danlu.serving.http.prediction_routes import Predicting, refuse
from danlu.serving.refusals import Refusal
from danlu.serving.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset(
    ("/healthz", "/readyz", "/")
)  # told to everybody: probes, and the page, which holds no data itself
PAGE = "/page/"  # its files, the same for everybody
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass
class Seen:
    """The headers that matter of a request."""

    host: bytes = b""
    origin: bytes = b""
    authorization: bytes = b""
    kind: bytes = b""
    encoding: bytes = b""
    length: bytes = b""
    deadline: bytes = b""
    hosts: int = 0


_NAMES = {
    b"origin": "origin",
    b"authorization": "authorization",
    b"content-type": "kind",
    b"content-encoding": "encoding",
    b"content-length": "length",
    b"x-deadline-ms": "deadline",
}


class Gate:
    """An ASGI app before two others: `predicting` for POST .../predict, `app` for the rest."""

    def __init__(
        self, app: App, predicting: Predicting, settings: Settings, token: str | None
    ) -> None:
        self.app = app
        self.predicting = predicting
        self.settings = settings
        self.token = token.encode() if token else None
        self.hosts = (
            _hosts(settings) if settings.host in LOOPBACK or settings.allowed_hosts else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = self.see(scope["headers"])
        path, posts = scope["path"], scope["method"] == "POST"
        try:
            self.check(seen, path, posts)
            if posts and path.endswith("/predict") and path.startswith("/v1/"):
                await self.predicting(scope, receive, send, seen)
                return
            if seen.length:
                _declared(seen.length, self.settings.most_body)
        except Refusal as refusal:
            await refuse(send, refusal)
            return
        await self.app(scope, _Bounded(receive, self.settings.most_body), send)

    def see(self, headers: Iterable[tuple[bytes, bytes]]) -> Seen:
        """The headers that matter."""
        seen = Seen()
        for name, value in headers:
            if name == b"host":
                seen.host = value
                seen.hosts += 1
            elif name in _NAMES:
                setattr(seen, _NAMES[name], value)
        return seen

    def check(self, seen: Seen, path: str, posts: bool) -> None:
        """Raises Refusal where a request may not be asked."""
        if seen.hosts > 1:
            raise Refusal("there are several Host headers.")
        if self.hosts is not None and _name(seen.host) not in self.hosts:
            raise Refusal(
                "this server is not known by the name of the Host header.", status=421,
                hint="ask it by its address, or start it with --allowed-host NAME",
            )  # fmt: skip
        if posts and seen.origin and seen.origin.partition(b"://")[2] != seen.host:
            raise Refusal("pages of another origin may not post here.", status=403)
        if (
            self.token is not None
            and path not in OPEN
            and not path.startswith(PAGE)
            and not self._knows(seen.authorization)
        ):
            raise Refusal(
                "a token is needed.", status=401, hint="send the header Authorization: Bearer TOKEN"
            )

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, given = authorization.partition(b" ")
        assert self.token is not None
        return hmac.compare_digest(given.strip(), self.token) and scheme.lower() == b"bearer"


def _hosts(settings: Settings) -> set[bytes]:
    names = [
        *settings.allowed_hosts,
        settings.host,
        *(LOOPBACK if settings.host in LOOPBACK else ()),
    ]
    return {name.lower().encode() for name in names}


def _name(host: bytes) -> bytes:
    """A Host header without its port."""
    host = host.lower()
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]


def _declared(length: bytes, most: int) -> int:
    """The number of a Content-Length header. Raises Refusal where it is too large."""
    size = int(length) if length.isdigit() and len(length) < 20 else most + 1
    if size > most:
        raise Refusal(
            f"the body is larger than the {most:,} bytes that are read.",
            status=413,
            hint="send fewer rows in a request",
        )
    return size


class _Bounded:
    """A receive that refuses a body longer than it may be, however it comes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.receive = receive
        self.left = most

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, "the body is too large.")
        return message
