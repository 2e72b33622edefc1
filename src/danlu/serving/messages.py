"""Messages between the front and a worker: a line of JSON, and after it the raw bytes that its "bytes" counts. Never pickle.

From the front
  {"do": "open", "path", "name", "threads", "options": {...}}          the first message, once; a worker serves one model
  {"do": "answer", "id", "kind": content type, "before": t, "bytes": n}     + the body of the request, as it came
  {"do": "write", "id", "request": {...}, "before": t}                 of a model of texts; see danlu.serving.worker.main.Texts
  {"do": "cancel", "id"}                                               nobody waits for it any more
From the worker
  {"say": "imported"}                                                  it can open a model at once (a spare waits here)
  {"say": "ready", "about": {...}, "seconds": s}                       the model is open and has answered its example (in s seconds)
  {"say": "refused", "error": {"message", "where", "hint"}}            it cannot be opened; the worker ends
  {"say": "beat", "work": s or null, "cpu": s}                         twice a second: how long its present step lasts, CPU time used
  {"say": "answer", "id", "status", "rows", "bytes": n}                + the body of the answer, JSON
  {"say": "step", "rows", "seconds", "most"}                           a step of so many rows took so long; at most so many are one
  {"say": "event", "id", "piece", "ended", "tokens", ...}              of a text: more of it; `ended` is null until it is finished
`before` is a moment of time.monotonic(), which processes of one machine share: what is not begun then is not begun at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_HEADER = 64 << 20  # bytes of a line; a card with its scores is far below
MOST_BODY = 1 << 30

Message = tuple[dict[str, Any], bytes]


def pack(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The bytes of a message."""
    told = {**header, "bytes": len(body)} if body else header
    return json.dumps(told, separators=(",", ":")).encode() + b"\n" + body


class Unpacker:
    """Messages out of bytes that come in pieces of any size. ValueError for what is no message."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._header: Any = None
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes."""
        held = self._held
        held += data
        place = 0
        try:
            while True:
                if self._header is None:
                    end = held.find(b"\n", place)
                    if end < 0:
                        if len(held) - place > MOST_HEADER:
                            raise ValueError("a message has no end")
                        return
                    self._header = json.loads(held[place:end])
                    self._size = int(self._header.get("bytes", 0))
                    if not 0 <= self._size <= MOST_BODY:
                        raise ValueError("a message declares a size that cannot be")
                    place = end + 1
                if len(held) - place < self._size:
                    return
                body = bytes(held[place : place + self._size])
                place += self._size
                header, self._header = self._header, None
                yield header, body
        finally:
            del held[:place]
