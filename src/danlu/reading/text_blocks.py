"""Text files larger than memory as UTF-8 blocks, and the lines of such blocks."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from danlu.errors import DataError
from danlu.reading import charsets
from danlu.reading import files as disk

_NEWLINE = 10
_HEAD = 1 << 16  # bytes that are searched for a byte order mark and for zeros


def open_text(path: Path, name: str, encoding: str = "auto") -> tuple[str, str, Iterator[bytes]]:
    """(the encoding of a file, why it was chosen, its text in blocks of UTF-8); messages call the
    file `name`.

    The encoding is chosen as danlu.reading.charsets.decode_text does, where need be by the text
    around the first byte that is not UTF-8. A block may end within a character. DataError where the
    file is empty, holds a NUL byte, or is not valid in its encoding; the last two are raised while
    the blocks are read."""
    head = b""
    for block in disk.read_blocks(path):
        head += block
        if len(head) >= _HEAD:
            break
    if not head:
        raise DataError("the file is empty.", where=name, hint="check the file")
    declared = charsets.declared_encoding(head, encoding)
    proven = declared is None
    name_of, mark, reason = declared or _by_bytes(path, name)
    pieces = _after(disk.read_blocks(path), mark)
    text = pieces if proven and name_of == "utf-8" else _as_utf8(pieces, name, name_of, mark)
    return name_of, reason, _without_nul(text, name)


def _by_bytes(path: Path, name: str) -> tuple[str, int, str]:
    """UTF-8 where the whole file is valid UTF-8, else the most probable encoding; with 0 (no byte
    order mark) and the reason."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    before, lines, seen = b"", 0, 0
    pieces = disk.read_blocks(path)
    for block in pieces:
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            position = len(before) + error.start - (len(error.object) - len(block))
            content = _whole_lines(before + block + next(pieces, b""), position)
            return _weighed(content, position, name, lines, seen)
        kept = block.rfind(b"\n") + 1  # the line that the block ends in
        lines += (before + block[:kept]).count(b"\n") if kept else 0
        seen += len(before) + kept if kept else 0
        before = block[kept:] if kept else before + block
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _weighed(before, max(len(before) - 1, 0), name, lines, seen)
    return "utf-8", 0, ""


def _whole_lines(content: bytes, position: int) -> bytes:
    """The content up to its last line end after `position`, so that no character is cut; all of it
    where there is no line end."""
    end = content.rfind(b"\n", position)
    return content[: end + 1] if end > position else content


def _weighed(
    content: bytes, position: int, name: str, lines: int, seen: int
) -> tuple[str, int, str]:
    encoding, reason = charsets.guess_encoding(content, position, name, lines, seen)
    return encoding, 0, reason


def _after(pieces: Iterator[bytes], mark: int) -> Iterator[bytes]:
    """The pieces of a file without the first `mark` bytes."""
    for block in pieces:
        skipped = min(mark, len(block))
        mark -= skipped
        if len(block) > skipped:
            yield block[skipped:]


def _as_utf8(pieces: Iterator[bytes], name: str, encoding: str, mark: int) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines, seen = 0, mark
    for block in itertools.chain(pieces, [b""]):  # the last tells that nothing follows
        try:
            text = decoder.decode(block, final=not block)
            yield text.encode("utf-8")
        except UnicodeDecodeError as error:
            kept = len(error.object) - len(
                block
            )  # bytes of the block before, which ended within a character
            position = seen - kept + error.start + 1
            line = (
                lines
                + decoder.__class__("ignore").decode(error.object[: error.start]).count("\n")
                + 1
            )
            shown = error.object[error.start : error.start + 4].hex(" ")
            hint = (
                "set data.source.encoding to the encoding the file was saved in, or save it "
                "as UTF-8"
            )
            raise DataError(
                f"line {line:,} (byte {position:,}: {shown}) is not {encoding}.",
                where=name,
                hint=hint,
            ) from None
        except UnicodeEncodeError:
            hint = "set data.source.encoding"
            raise DataError(
                f"read as {encoding} the file holds half of a surrogate pair.",
                where=name,
                hint=hint,
            ) from None
        lines += text.count("\n")
        seen += len(block)


def _without_nul(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    lines, seen = 0, 0
    for block in pieces:
        at = block.find(b"\0")
        if at >= 0:
            line = lines + block.count(b"\n", 0, at) + 1
            hint = "is it a binary file, or in an encoding to be named as data.source.encoding?"
            raise DataError(
                f"byte {seen + at + 1:,} is NUL, which no text file contains.",
                where=f"{name} row {line:,}",
                hint=hint,
            )
        lines += block.count(b"\n")
        seen += len(block)
        if block:
            yield block


def lines_of_blocks(pieces: Iterator[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each block of a text: (uint8 bytes without line ends, int64 lengths of the lines that end
    in the block; a line's length includes its bytes in earlier blocks).

    Lines end in LF or CR LF, or in CR where the first block with a line end has no LF. The last
    line needs no end; empty lines count.

    >>> pairs = lines_of_blocks(iter([b"a", b"b\\nc"]))
    >>> [(data.tobytes(), sizes.tolist()) for data, sizes in pairs]
    [(b'a', []), (b'bc', [2]), (b'', [1])]
    """
    open_bytes, began, carried, only_cr = 0, False, b"", None
    for block in itertools.chain(pieces, [b""]):
        last = not block
        block = carried + block
        carried = b"\r" if block.endswith(b"\r") and not last else b""  # LF may follow
        block = block[: len(block) - len(carried)]
        if only_cr is None and (b"\n" in block or b"\r" in block):
            only_cr = b"\n" not in block
        block = block.replace(b"\r", b"\n") if only_cr else block.replace(b"\r\n", b"\n")
        data = np.frombuffer(block, dtype=np.uint8)
        newline = data == _NEWLINE
        sizes = np.diff(np.flatnonzero(newline), prepend=-1) - 1
        if len(sizes):
            sizes[0] += open_bytes
            open_bytes, began = 0, False
        rest = len(block) - (block.rfind(b"\n") + 1)
        open_bytes += rest
        began = began or rest > 0
        if last and began:
            sizes = np.append(sizes, open_bytes)
        yield data[~newline], sizes.astype(np.int64)
