"""What a hostile image file may cost to decode, judged before it is decoded.

Pillow checks the number of pixels alone. Here are bounds on the rest: how often and how much its
readers read (a file of metadata alone, parts of a file that are read again and again), how many
scans a JPEG has (each may go over all pixels and take 26 bytes), and a reader of the one entry of
an EXIF block that is needed."""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_SCANS = 1000  # of a JPEG; cameras and editors write 1 to 20
# Scans times pixels: 20 scans of 100 million pixels. An empty scan takes about a nanosecond each.
MOST_SCANNED = 2**31
_MOST_COMMENTS = 1000  # of a plain PPM file, which Pillow cuts out one by one
_CALLS = 100_000
_BYTES_PER_CALL = 64  # in larger files
# Pillow reads these formats run by run, or pixel by pixel.
_SLOW_FORMATS, _SLOW_CALLS = ("BMP", "PPM"), 2**22
_MARKER = re.compile(rb"\xff+([^\x00\xff])")  # 00 stands for a byte FF of the data
_LENGTHLESS = frozenset((0x01, *range(0xD0, 0xD9)))
_END, _SCAN = 0xD9, 0xDA
_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # by the type of an EXIF entry


class CostlyImage(Exception):
    """An image that would take too long, or too much memory, to decode; the text says why."""


class CountedFile(io.BytesIO):
    """The bytes of an image file for Pillow. Raises CostlyImage where they are read in very many
    pieces, or many times over."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._calls_left = _CALLS + len(content) // _BYTES_PER_CALL
        self._bytes_left = 8 * len(content) + (1 << 20)

    def expect(self, image_format: str | None) -> None:
        """The file is of this format."""
        if image_format in _SLOW_FORMATS:
            self._calls_left = max(self._calls_left, _SLOW_CALLS)

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._calls_left -= 1
        self._bytes_left -= len(content)
        self._check()
        return content

    def readline(self, size: int | None = -1, /) -> bytes:
        content = super().readline(size)
        self._calls_left -= 1
        self._bytes_left -= len(content)
        self._check()
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._calls_left -= 1
        self._check()
        return super().seek(offset, whence)

    def _check(self) -> None:
        if self._calls_left < 0:
            raise CostlyImage("it consists of too many small pieces")
        if self._bytes_left < 0:
            raise CostlyImage("its entries lie on the same bytes many times over")


def check_cost(content: bytes, image_format: str | None, pixels: int) -> int:
    """How often a decoder goes over the pixels of an image file, at least 1. Raises CostlyImage
    where that is too much work."""
    is_text = image_format == "PPM" and content[:2] in (b"P1", b"P2", b"P3")
    if is_text and content.count(b"#") > _MOST_COMMENTS:
        raise CostlyImage(f"it holds more than {_MOST_COMMENTS:,} comments")
    if image_format not in ("JPEG", "MPO"):
        return 1
    scans = jpeg_scans(content)
    if scans > MOST_SCANS or scans * pixels > MOST_SCANNED:
        raise CostlyImage(f"its {pixels:,} pixels are written in {scans:,} scans or more")
    return max(1, scans)


def jpeg_scans(content: bytes) -> int:
    """How many scans the first image of a JPEG file has; counted no further than MOST_SCANS + 1.

    >>> jpeg_scans(b"\\xff\\xd8\\xff\\xda\\x00\\x02data\\xff\\x00\\xff\\xda\\x00\\x02\\xff\\xd9")
    2
    """
    scans, at = 0, 2
    while scans <= MOST_SCANS and (match := _MARKER.search(content, at)):
        marker, at = match[1][0], match.end()
        if marker == _END:
            break
        if marker not in _LENGTHLESS:
            scans += marker == _SCAN
            at += int.from_bytes(content[at : at + 2], "big")
    return scans


def exif_orientation(block: bytes) -> int:
    """The orientation (1 to 8) that an EXIF block names; 1 where it names none. Nothing else of the
    block is read: its entries may lie on the same bytes, and be huge together.

    >>> import struct
    >>> exif_orientation(b"II*\\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0))
    6
    """
    start = 0
    while block.startswith(b"Exif\0\0", start):
        start += 6
    order = {b"II": "<", b"MM": ">"}.get(block[start : start + 2])
    if order is None or len(block) < start + 8:
        return 1
    (first,) = struct.unpack_from(f"{order}I", block, start + 4)
    found = 1
    for tag, kind, count, value in _entries(block, start + first, order):
        if tag == _ORIENTATION and kind in _NUMBERS and count == 1:
            found = struct.unpack_from(f"{order}{_NUMBERS[kind]}", value)[0]
    return found if 1 <= found <= 8 else 1


def _entries(block: bytes, at: int, order: str) -> Iterator[tuple[int, int, int, bytes]]:
    if len(block) < at + 2:
        return
    (count,) = struct.unpack_from(f"{order}H", block, at)
    whole = min(count, (len(block) - at - 2) // 12)
    yield from struct.iter_unpack(f"{order}HHI4s", block[at + 2 : at + 2 + 12 * whole])


class PixelRoom:
    """Lets threads decode images as long as they have at most `most` pixels together; one alone may
    have more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for `pixels` more, which are free again after the `with`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self.most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()
