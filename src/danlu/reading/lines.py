"""The lines of a text in memory, as bytes and lengths."""

from __future__ import annotations

import numpy as np

from danlu.errors import DataError

_NEWLINE = 10


def check_is_text(content: bytes, name: str) -> None:
    """Raises DataError where a file's content is empty or holds a NUL byte; messages call it
    `name`.

    >>> check_is_text(b"a\\0b", "a.txt")
    Traceback (most recent call last):
    danlu.errors.DataError: a.txt row 1: byte 2 is NUL, which no text file contains...
    """
    if not content:
        raise DataError("the file is empty.", where=name, hint="check the file")
    at = content.find(b"\0")
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        hint = "is it a binary file, or in an encoding to be named as data.source.encoding?"
        raise DataError(
            f"byte {at + 1:,} is NUL, which no text file contains.",
            where=f"{name} row {line:,}",
            hint=hint,
        )


def split_lines(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes of all lines without their line ends, int64 length of each line in bytes).

    Lines end in LF or CR LF, or in CR where there is no LF. The last line needs no end; empty lines
    count.

    >>> data, lengths = split_lines(b"ab\\r\\n\\r\\nc")
    >>> data.tobytes(), lengths.tolist()
    (b'abc', [2, 0, 1])
    """
    content = content.replace(b"\r\n", b"\n") if b"\n" in content else content.replace(b"\r", b"\n")
    data = np.frombuffer(content.removesuffix(b"\n"), dtype=np.uint8)
    newline = data == _NEWLINE
    ends = np.append(np.flatnonzero(newline), len(data))
    return data[~newline], np.diff(ends, prepend=-1) - 1
