"""What stands before every route: who may ask, by which host name, and with how large a body.

Pages of other sites can ask a server on this machine's own address too, since a browser runs their
scripts here. So the name by which a request calls the server (Host) must be one of its own (this
stops DNS rebinding), and what a page of another origin posts is refused. No answer allows another
origin to read it.
"""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from danlu.errors import DanluError
from danlu.serving.http.request_headers import RequestHeaders, read_headers
from danlu.serving.http.responses import send_refusal, too_large
from danlu.serving.protocol.refusals import Refusal
from danlu.serving.protocol.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from danlu.serving.http.prediction_routes import PredictionRoute

# Answered without a token: probes, and the page, which holds no data itself.
PUBLIC = frozenset(("/healthz", "/readyz", "/"))
PUBLIC_FILES = "/page/"  # the files of the page, the same for everybody
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_MIN_TOKEN = 16  # characters


def read_token(settings: Settings) -> str | None:
    """The token in the token file; None without one.

    Raises DanluError where a token is needed and missing, is too short, or can be read by others,
    and where only one of the two TLS files is given."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise DanluError(
            "TLS needs the certificate and its key.", hint="give --tls-certificate and --tls-key"
        )
    if settings.token_file is None:
        if settings.host not in ("127.0.0.1", "localhost", "::1"):
            raise DanluError(
                f"other machines reach {settings.host}, so a token is needed.",
                where="serve",
                hint="write a long random word into a file only you can read, and give "
                "--token-file FILE",
            )
        return None
    path = Path(settings.token_file)
    try:
        status = path.stat()
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DanluError(f"the token cannot be read: {error}.", where=str(path)) from None
    # A file of another owner, such as a mounted secret of Kubernetes, is read through its group.
    if os.name == "posix":
        forbidden = 0o077 if status.st_uid == os.geteuid() else 0o037
        if stat.S_IMODE(status.st_mode) & forbidden:
            raise DanluError(
                "others may read the token.", where=str(path), hint=f"chmod 600 {path}"
            )
    if len(token) < _MIN_TOKEN or any(map(str.isspace, token)) or not token.isascii():
        raise DanluError(
            f"a token is one word of at least {_MIN_TOKEN} ASCII characters.",
            where=str(path),
            hint="openssl rand -hex 32",
        )
    return token


class SecuredApp:
    """The ASGI app of a server: checks every request, then gives it to the route of predictions
    or to `app`, which has all other routes."""

    def __init__(
        self, app: ASGIApp, prediction: PredictionRoute, settings: Settings, token: str | None
    ) -> None:
        self.app = app
        self.prediction = prediction
        self.settings = settings
        self.token = token.encode() if token else None
        checks_hosts = settings.host in LOOPBACK or settings.allowed_hosts
        self.hosts = _host_names(settings) if checks_hosts else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = read_headers(scope["headers"])
        path, posts = scope["path"], scope["method"] == "POST"
        try:
            self.check(headers, path, posts)
            if posts and path.endswith("/predict") and path.startswith("/v1/"):
                await self.prediction(scope, receive, send, headers)
                return
            if headers.length:
                _check_length(headers.length, self.settings.most_body)
        except Refusal as refusal:
            await send_refusal(send, refusal)
            return
        await self.app(scope, _BoundedReceive(receive, self.settings.most_body), send)

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
        if self.token is not None and not is_public:
            _check_token(headers.authorization, self.token)


def _check_token(authorization: bytes, token: bytes) -> None:
    scheme, _, word = authorization.partition(b" ")
    # Compared in a time that does not depend on how much of the token is right.
    if not hmac.compare_digest(word.strip(), token) or scheme.lower() != b"bearer":
        raise Refusal(
            "a token is needed.", status=401, hint="send the header Authorization: Bearer TOKEN"
        )


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


class _BoundedReceive:
    """An ASGI receive that refuses a body longer than `max_bytes`, however it is framed."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.receive = receive
        self.bytes_left = max_bytes

    async def __call__(self) -> Message:
        message = await self.receive()
        self.bytes_left -= len(message.get("body", b""))
        if self.bytes_left < 0:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, "the body is too large.")
        return message
