"""Messages between the HTTP process and a worker process.

A message is one line of JSON (its header) and after it a body of raw bytes, whose length stands in
the header under "bytes". No message is a pickle. A header names what it asks ("do", to a worker) or
what it reports ("say", from a worker); the TypedDicts below list the keys of each.

Deadlines ("before") are moments of time.monotonic(), a clock that all processes of one machine
share. A worker does not begin a request whose deadline has passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Literal, NotRequired, TypeAlias, TypedDict, TypeVar

MAX_HEADER_BYTES = 64 << 20  # a model's description with its scores is far smaller
MAX_BODY_BYTES = 1 << 30


RowField: TypeAlias = dict[str, Any]
"""One field of a row as JSON: "name", "kind", "example" and, by its kind, more keys; see
danlu.artifact.row_schema."""

Answer: TypeAlias = dict[str, object]
"""The answer to one row as JSON: "prediction" and, by the task, more keys."""


class ErrorFields(TypedDict):
    """An error of a request, as JSON. `row` counts from 1."""

    message: str
    field: str | None
    row: int | None
    hint: str


class ModelOptions(TypedDict, total=False):
    """Options with which a worker opens a model; see the settings of the same names."""

    most_rows: int
    batch: int
    slots: int | None


class ModelDescription(TypedDict, total=False):
    """What a worker reports of the model that it has opened.

    kind         "rows": answers rows; "text": writes text
    fields       of "rows": the fields of a row, see danlu.artifact.row_schema
    card         task, classes, scores, provenance, ...
    paces        (rows, seconds) of the steps of the warm-up
    opening      seconds that opening took
    context      of "text": tokens that the model sees
    chat         of "text": whether it was tuned on conversations
    slots        of "text": texts written at a time
    cache_bytes  of "text": memory of the key-value cache
    """

    name: str
    kind: Literal["rows", "text"]
    fields: list[RowField]
    card: dict[str, object]
    paces: list[tuple[int, float]]
    opening: float
    most_rows: int
    context: int
    chat: bool
    max_tokens: int
    slots: int
    cache_bytes: int


# --- from the HTTP process to a worker


class OpenModel(TypedDict):
    """The first message: open the model in the folder `path`. A worker serves one model."""

    do: Literal["open"]
    path: str
    name: str
    threads: int
    options: ModelOptions


class AnswerRows(TypedDict):
    """Answer the rows in the body, which is the body of the HTTP request as it came.

    `kind` is its content type."""

    do: Literal["answer"]
    id: int
    kind: str
    before: float


class WriteText(TypedDict):
    """Write a text; see danlu.serving.worker.handler.TextWriter for `request`."""

    do: Literal["write"]
    id: int
    request: dict[str, object]
    before: float


class Cancel(TypedDict):
    """Nobody waits for this request any more."""

    do: Literal["cancel"]
    id: int


Request: TypeAlias = AnswerRows | WriteText
ToWorker: TypeAlias = OpenModel | AnswerRows | WriteText | Cancel


# --- from a worker to the HTTP process


class Imported(TypedDict):
    """The libraries are imported: a model can be opened at once. A spare worker waits here."""

    say: Literal["imported"]


class Ready(TypedDict):
    """The model is open and has answered its own example, in `seconds`."""

    say: Literal["ready"]
    description: ModelDescription
    seconds: float


class OpenError(TypedDict):
    """Why a model cannot be opened; see danlu.errors.Problem."""

    message: str
    where: str
    hint: str


class Refused(TypedDict):
    """The model cannot be opened. The worker ends."""

    say: Literal["refused"]
    error: OpenError


class Beat(TypedDict):
    """A sign of life, twice a second.

    `work` is how many seconds the present step has lasted (None between steps), `cpu` the seconds
    of processor time that the process has used."""

    say: Literal["beat"]
    work: float | None
    cpu: float


class RowsAnswered(TypedDict):
    """The answer to AnswerRows; the body is the body of the HTTP answer, JSON."""

    say: Literal["answer"]
    id: int
    status: int
    rows: int


class StepDone(TypedDict):
    """A step answered `rows` rows in `seconds`; a step now takes at most `most` rows."""

    say: Literal["step"]
    rows: int
    seconds: float
    most: int


class TextEvent(TypedDict):
    """The answer to WriteText, in pieces.

    `ended` is None until the text is finished, then why it ended, or "refused": then `status` and
    `error` say why. `codes` are the tokens drawn since the last event."""

    say: Literal["event"]
    id: int
    piece: str
    ended: str | None
    tokens: int
    codes: NotRequired[list[int]]
    prompt_tokens: NotRequired[int]
    status: NotRequired[int]
    error: NotRequired[ErrorFields]


FromWorker: TypeAlias = Imported | Ready | Refused | Beat | RowsAnswered | StepDone | TextEvent

H = TypeVar("H", bound=Mapping[str, Any])


def pack(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The bytes of a message.

    >>> pack({"do": "cancel", "id": 7})
    b'{"do":"cancel","id":7}\\n'
    >>> pack({"say": "answer", "id": 7}, b"[]")
    b'{"say":"answer","id":7,"bytes":2}\\n[]'
    """
    with_size = {**header, "bytes": len(body)} if body else header
    return json.dumps(with_size, separators=(",", ":")).encode() + b"\n" + body


class Unpacker(Generic[H]):
    """Reads messages out of bytes that come in pieces of any size.

    >>> unpacker = Unpacker()
    >>> list(unpacker.feed(b'{"do":"cancel"'))
    []
    >>> list(unpacker.feed(b',"id":7}\\n'))
    [({'do': 'cancel', 'id': 7}, b'')]
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: H | None = None
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[H, bytes]]:
        """The messages (header, body) that `data` completes. Raises ValueError for bytes that are
        no message."""
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while True:
                if self._header is None:
                    end = buffer.find(b"\n", position)
                    if end < 0:
                        if len(buffer) - position > MAX_HEADER_BYTES:
                            raise ValueError("the header of a message has no end")
                        return
                    self._read_header(buffer[position:end])
                    position = end + 1
                if len(buffer) - position < self._size:
                    return
                body = bytes(buffer[position : position + self._size])
                position += self._size
                header, self._header = self._header, None
                assert header is not None
                yield header, body
        finally:
            del buffer[:position]

    def _read_header(self, line: bytearray) -> None:
        header = json.loads(line)
        self._size = int(header.get("bytes", 0))
        if not 0 <= self._size <= MAX_BODY_BYTES:
            raise ValueError("a message declares a size out of range")
        self._header = header
