"""The headers that matter of a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class RequestHeaders:
    """The values of headers, as they came; b"" where one is missing.

    hosts     how many Host headers there are
    kind      Content-Type
    encoding  Content-Encoding
    length    Content-Length
    framing   Transfer-Encoding
    deadline  X-Deadline-Ms
    """

    host: bytes = b""
    origin: bytes = b""
    authorization: bytes = b""
    kind: bytes = b""
    encoding: bytes = b""
    length: bytes = b""
    framing: bytes = b""
    deadline: bytes = b""
    hosts: int = 0


_ATTRIBUTES = {
    b"origin": "origin",
    b"authorization": "authorization",
    b"content-type": "kind",
    b"content-encoding": "encoding",
    b"content-length": "length",
    b"transfer-encoding": "framing",
    b"x-deadline-ms": "deadline",
}


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """The headers that matter, of (name in lower case, value). The last of a name counts.

    >>> read_headers([(b"host", b"localhost"), (b"x-other", b"1")]).host
    b'localhost'
    """
    result = RequestHeaders()
    for name, value in headers:
        if name == b"host":
            result.host = value
            result.hosts += 1
        elif name in _ATTRIBUTES:
            setattr(result, _ATTRIBUTES[name], value)
    return result
