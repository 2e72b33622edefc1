"""How many bytes a file may decode to: judged by what is decoded, not by what a header says.

A few bytes can decode to more than any machine holds. A DecodedSize counts while a file is decoded
and refuses it as soon as one of these limits is passed:

    whatever the file's size   a reader's own number of bytes, at most `free_bytes()`
    above                      `expansion` bytes for each byte of the file that was read so far
    always                     a third of the memory that is free

DANLU_DECODED=4G in the environment replaces the first: files that decode to no more are read
however small they are. The third stays."""

from __future__ import annotations

import os
import re

from danlu.errors import DataError
from danlu.system import machine

VARIABLE = "DANLU_DECODED"
MOST_EXPANSION = 200  # decoded bytes per byte of a file: text has 3 to 20, dull tables up to 100
_SHARE = 96  # a file may decode to this part of the machine's memory, whatever its size
_LEAST_FREE = 2**27
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def free_bytes() -> int:
    """How many bytes a file may decode to, whatever its own size: DANLU_DECODED, else one
    ninety-sixth of the machine's memory and at least 128 MiB. DataError where DANLU_DECODED is no
    size."""
    return _asked() or max(_LEAST_FREE, machine.memory()[0] // _SHARE)


def _asked() -> int | None:
    """DANLU_DECODED in bytes; None where it is not set."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise DataError(
            f"{text[:40]!r} is no size in bytes.", where=VARIABLE, hint=f"{VARIABLE}=4G"
        )
    return int(match[1]) * _UNITS[match[2].upper()]


class DecodedSize:
    """Counts what a file decodes to. `where` is what messages call the file.

    encoded     bytes of the whole file
    free        bytes that are decoded whatever the file's size (a reader whose caller makes much of
                each byte gives fewer than `free_bytes()`)
    expansion   decoded bytes for each byte of the file, above `free`
    instead     what the reader of the message can do, besides raising the limit

    >>> size = DecodedSize(100, "a.gz", free=1000, expansion=20)
    >>> size.add(900)
    >>> size.add(2000, encoded=100)
    Traceback (most recent call last):
    danlu.errors.DataError: a.gz: 100 bytes decode to more than 2,000, as a decompression bomb...
    """

    def __init__(
        self,
        encoded: int,
        where: str,
        *,
        free: int | None = None,
        expansion: int = MOST_EXPANSION,
        instead: str = "decompress it yourself",
    ) -> None:
        self.encoded = encoded
        self.where = where
        self.free = _asked() or (free_bytes() if free is None else min(free, free_bytes()))
        self.expansion = expansion
        self.instead = instead
        self.total = 0
        self._available = machine.memory()[1]

    def add(self, size: int, encoded: int | None = None) -> None:
        """`size` bytes more were decoded, of the first `encoded` bytes of the file (None: of all).

        DataError where that is too many."""
        self.expect(self.total + size, encoded)
        self.total += size

    def expect(self, total: int, encoded: int | None = None) -> None:
        """DataError where `total` decoded bytes are too many; nothing is counted."""
        encoded = self.encoded if encoded is None else min(encoded, self.encoded)
        most = max(self.free, self.expansion * encoded)
        if total > most:
            raise DataError(
                f"{encoded:,} bytes decode to more than {most:,}, as a decompression bomb would; "
                "it is not read.",
                where=self.where,
                hint=f"if it is meant, {self.instead}, or say in the environment what a file may "
                f"decode to: {VARIABLE}={_next_size(total)}",
            )
        if total > self._available / 3:
            raise DataError(
                f"it decodes to more than {_in_words(total)}, and this machine has "
                f"{self._available / 2**30:,.1f} GiB of memory free.",
                where=self.where,
                hint="divide it, or take a machine with more memory",
            )


def _in_words(size: int) -> str:
    return f"{-(-size // 2**20):,} MiB" if size < 2**33 else f"{size / 2**30:,.0f} GiB"


def _next_size(size: int) -> str:
    """A round size of at least four times as much, as DANLU_DECODED takes it."""
    return f"{max(1, 1 << (4 * size >> 30).bit_length())}G"
