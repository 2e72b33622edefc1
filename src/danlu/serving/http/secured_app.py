"""What stands before every route: who may ask, by which host name, and with how large a body.

Pages of other sites can ask a server on this machine's own address too, since a browser runs their
scripts here. So the name by which a request calls the server (Host) must be one of its own (this
stops DNS rebinding), and what a page of another origin posts is refused. No answer allows another
origin to read it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from danlu.serving.http.request_body import RequestBody
from danlu.serving.http.request_headers import RequestHeaders, read_headers
from danlu.serving.http.responses import SHUTTING_DOWN, broken_off, send_refusal, too_large
from danlu.serving.http.security import bears_token
from danlu.serving.http.turns import Turns
from danlu.serving.protocol.refusals import Refusal
from danlu.serving.protocol.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from danlu.serving.http.prediction_routes import PredictionRoute

# Answered without a token: probes, and the page, which holds no data itself.
PUBLIC = frozenset(("/healthz", "/readyz", "/"))
PUBLIC_FILES = "/page/"  # the files of the page, the same for everybody
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_READS_AT_A_TIME = 4  # pieces of large bodies that are read in one round of the event loop
_REQUESTS_AT_A_TIME = 4  # requests that FastAPI begins to answer in one round

log = logging.getLogger("danlu.serving")


class SecuredApp:
    """The ASGI app of a server: checks every request, then gives it to the route of predictions
    or to `app`, which has all other routes.

    probes    by URL: the answer (status, body) to headers that `check` let through
    reading   the turns of connections whose large bodies are read
    turns     the turns of requests that `app` answers
    """

    def __init__(
        self,
        app: ASGIApp,
        prediction: PredictionRoute,
        settings: Settings,
        token: str | None,
        probes: Mapping[bytes, Callable[[RequestHeaders], tuple[int, bytes]]],
    ) -> None:
        self.app = app
        self.prediction = prediction
        self.settings = settings
        self.token = token.encode() if token else None
        self.probes = probes
        self.reading = Turns(_READS_AT_A_TIME)
        self.turns = Turns(_REQUESTS_AT_A_TIME)
        checks_hosts = settings.host in LOOPBACK or settings.allowed_hosts
        self.hosts = _host_names(settings) if checks_hosts else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = RequestBody(receive, scope, self.prediction.pool, self.reading)
        answer = _Answer(send)
        try:
            await self._answer(scope, body, answer)
        except ClientDisconnect:
            log.info("%s", broken_off(scope["method"], scope["path"], body.arrived))
        except asyncio.CancelledError:  # the server ends, and waits for this request no longer
            log.info("%s %s: not answered before the end", scope["method"], scope["path"])
            if not answer.is_begun:
                await send_refusal(answer, SHUTTING_DOWN, retry=1, close=True)
        finally:
            body.release()

    async def _answer(self, scope: Scope, body: RequestBody, send: Send) -> None:
        headers = read_headers(scope["headers"])
        path, posts = scope["path"], scope["method"] == "POST"
        try:
            self.check(headers, path, posts)
            if posts and path.endswith("/predict") and path.startswith("/v1/"):
                await self.prediction(scope, body, send, headers)
                return
            if headers.length:
                _check_length(headers.length, self.settings.most_body)
        except Refusal as refusal:
            await send_refusal(send, refusal)
            return
        await self.turns.wait()
        await self.app(scope, body, send)

    def check(self, headers: RequestHeaders, path: str, posts: bool) -> None:
        """Raises Refusal where this client may not make this request."""
        if headers.hosts > 1:
            raise Refusal("there are several Host headers.")
        if self.hosts is not None and _without_port(headers.host) not in self.hosts:
            raise Refusal(
                "the Host header is not a name of this server.",
                status=421,
                hint="ask it by its address, or start it with --allowed-host NAME",
            )
        if posts and headers.origin and headers.origin.partition(b"://")[2] != headers.host:
            raise Refusal("pages of another origin may not post here.", status=403)
        is_public = path in PUBLIC or path.startswith(PUBLIC_FILES)
        if not is_public and not bears_token(headers.authorization, self.token):
            raise Refusal(
                "a token is needed.",
                status=401,
                hint="send the header Authorization: Bearer TOKEN",
            )


class _Answer:
    """An ASGI send that knows whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.is_begun = False

    async def __call__(self, message: Message) -> None:
        self.is_begun = True
        await self.send(message)


def _host_names(settings: Settings) -> set[bytes]:
    loopback = LOOPBACK if settings.host in LOOPBACK else ()
    names = [*settings.allowed_hosts, settings.host, *loopback]
    return {name.lower().encode() for name in names}


def _without_port(host: bytes) -> bytes:
    host = host.lower()
    if host.startswith(b"["):
        return host.partition(b"]")[0] + b"]"
    return host.partition(b":")[0]


def _check_length(length: bytes, max_bytes: int) -> None:
    """Raises Refusal for a Content-Length that is too large or no number."""
    size = int(length) if length.isdigit() and len(length) < 20 else max_bytes + 1
    if size > max_bytes:
        raise too_large(max_bytes)
