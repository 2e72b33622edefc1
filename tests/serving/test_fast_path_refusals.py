"""Which requests are told that a server is full without being parsed: whole, plain ones, and no others."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="pip install 'danlu[serve]'")

from danlu.serving.http.fast_path import plain_request_size

BODY = b'{"rows": []}'
PLAIN = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n"
MOST = 4096


def test_a_plain_request_is_as_long_as_its_head_tells() -> None:
    assert plain_request_size(PLAIN + BODY, MOST) == len(PLAIN + BODY)
    assert plain_request_size(PLAIN + BODY[:5], MOST) == len(PLAIN + BODY)  # and so is not whole
    kept = PLAIN.replace(b"Host", b"Connection: Keep-Alive\r\nHost")
    assert plain_request_size(kept + BODY, MOST) == len(kept + BODY)


@pytest.mark.parametrize(
    "head",
    [
        PLAIN[:-2],
        PLAIN.replace(b"Content-Length: 12\r\n", b""),
        PLAIN.replace(b"12", b"-1"),
        PLAIN.replace(b"12", b"1_2"),
        PLAIN.replace(b"12", b"9" * 12),
        PLAIN.replace(b"Host", b"Content-Length: 3\r\nHost"),
        PLAIN.replace(b"Host", b"Content-Length : 3\r\nHost"),
        PLAIN.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"),
        PLAIN.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        PLAIN.replace(b"Host", b"Connection: close\r\nHost"),
        PLAIN.replace(b"Host", b"Connection: upgrade\r\nUpgrade: h2c\r\nHost"),
        PLAIN.replace(b"Host", b"X: " + b"y" * MOST + b"\r\nHost"),
    ],
    ids=lambda head: head[27:60].decode(),
)
def test_what_takes_a_parser_is_left_to_it(head: bytes) -> None:
    assert plain_request_size(head + BODY, MOST) == -1
