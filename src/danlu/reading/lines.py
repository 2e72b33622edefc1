"""The lines of a text file, as bytes and lengths."""

from __future__ import annotations

import numpy as np

from danlu.errors import DataError

_NEWLINE = 10


def check_is_text(content: bytes, name: str) -> None:
    """DataError where a file is empty or holds a NUL byte; `name` is what messages call it."""
    if not content:
        raise DataError("the file is empty.", where=name, hint="check the file")
    at = content.find(b"\0")
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        hint = "is it a binary file, or in an encoding to be named as data.source.encoding?"
        raise DataError(
            f"byte {at + 1:,} is NUL, which no text holds.", where=f"{name} row {line:,}", hint=hint
        )


def split_lines(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes of all lines without their ends, int64 length of each line). A last line need
    not end; empty lines count."""
    content = content.replace(b"\r\n", b"\n") if b"\n" in content else content.replace(b"\r", b"\n")
    data = np.frombuffer(content.removesuffix(b"\n"), dtype=np.uint8)
    newline = data == _NEWLINE
    ends = np.append(np.flatnonzero(newline), len(data))
    return data[~newline], np.diff(ends, prepend=-1) - 1
