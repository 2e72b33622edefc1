"""Answers and refusals of HTTP requests: as ASGI messages, and as bytes for a connection."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from danlu.serving.protocol.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import Send

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_JSON_HEADER = (b"content-type", b"application/json")
CLOSE_HEADER = (b"connection", b"close")


def full() -> Refusal:
    """The refusal of a server that is full."""
    return Refusal(
        "the server is full.", status=503, hint="ask again after the seconds of Retry-After"
    )


def shutting_down() -> Refusal:
    """The refusal of a server that is about to end."""
    return Refusal(
        "the server is shutting down.",
        status=503,
        hint="ask again in a second: another server may have taken over",
    )


# To be sent, not raised: an exception keeps the frames of every raise.
FULL = full()
SHUTTING_DOWN = shutting_down()


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a body of more than `max_bytes`."""
    return Refusal(
        f"the body is larger than the {max_bytes:,} bytes that are read.",
        status=413,
        hint="send fewer rows in a request",
    )


def broken_off(method: str, path: str, arrived: int) -> str:
    """What the log says of a request whose client went away before it had arrived.

    >>> broken_off("POST", "/v1/predict", 1200)
    'POST /v1/predict: the client went away after 1,200 bytes of the body'
    """
    return f"{method} {path}: the client went away after {arrived:,} bytes of the body"


async def send_json(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send an answer whose body is JSON."""
    head = [_JSON_HEADER, (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def send_refusal(send: Send, refusal: Refusal, retry: int = 0, close: bool = False) -> None:
    """Send a refusal; `retry` (seconds, 0: none) becomes Retry-After."""
    headers = []
    if retry:
        headers.append((b"retry-after", b"%d" % retry))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if close or refusal.status == 413:  # the rest of a body that is too large is not read
        headers.append(CLOSE_HEADER)
    await send_json(send, refusal.status, refusal.body(), headers)


def response_bytes(status: int, body: bytes, header_lines: bytes = b"") -> bytes:
    """A whole answer with a JSON body, as bytes for the connection.

    >>> response_bytes(200, b"{}")
    b'HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 2\\r\\n\\r\\n{}'
    """
    if status == 200 and not header_lines:
        return _OK % len(body) + body
    head = (
        f"HTTP/1.1 {status} {_phrase(status)}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    return head.encode() + header_lines + b"\r\n" + body


def _phrase(status: int) -> str:
    # Python's names of 413 differ between its versions.
    return "Content Too Large" if status == 413 else HTTPStatus(status).phrase


def refusal_bytes(refusal: Refusal, retry: int = 0, close: bool = False) -> bytes:
    """A refusal as bytes for the connection; `retry` (seconds, 0: none) becomes Retry-After."""
    lines = b"www-authenticate: Bearer\r\n" if refusal.status == 401 else b""
    if retry:
        lines += b"retry-after: %d\r\n" % retry
    if close:
        lines += b"connection: close\r\n"
    return response_bytes(refusal.status, refusal.body(), lines)
