"""What every tokenizer offers, and what all have in common: text taken block by block, in lower case where asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from danlu.reading.growing_array import GrowingArray
from danlu.terms import Column
from danlu.tokenizing import unicode_classes

Texts = Column | Sequence[str | bytes]


class Block(NamedTuple):
    """The codes of rows `first` on: all of them one after the other, the number in each row, and
    whether the last of the rows ends here."""

    first: int
    codes: np.ndarray
    counts: np.ndarray
    done: bool

    @property
    def rows(self) -> slice:
        """The rows that have codes here."""
        return slice(self.first, self.first + len(self.counts))


class Tokenizer(ABC):
    """Text to codes and back. Codes below danlu.terms.FIRST_TOKEN are danlu's own in every kind; no
    text can produce PADDING, BEGINNING, END or MASK, whatever it spells.

    kind           which of danlu.tokenizing.KINDS
    size           how many codes there are; codes are 0 to size - 1
    lower          whether text is put into lower case first
    byte_lengths   int64 (size,), bytes of text that each code stands for (0 for danlu's own), for bits per byte; None where a code has no
                   text of its own (words lose the spaces between them)
    """

    kind: str
    block = 4 << 20  # bytes of text worked on at a time

    def __init__(self, size: int, lower: bool = False) -> None:
        self.size = size
        self.lower = lower

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that codes are kept in: uint16 where it holds them all, else uint32."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(codes (T,) of `dtype`, offsets int64 (N + 1,)): text i is
        codes[offsets[i]:offsets[i+1]].

        `texts` is a text column or a list of strings (or UTF-8 bytes). Codes of more than
        danlu.reading.growing_array.LIMIT bytes lie in a temporary file, memory-mapped. A missing row has no
        code."""
        column = as_column(texts, mend=self.lower or self.kind != "bytes")
        lengths = np.zeros(len(column), dtype=np.int64)
        codes = GrowingArray(self.dtype)
        for block in self.stream(column):
            codes.append(block.codes)
            lengths[block.rows] += block.counts
        return codes.finish(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def stream(self, column: Column) -> Iterator[Block]:
        """`encode` block by block. A row longer than a block comes in several, cut where no code is
        changed by it."""
        for first, text, offsets, done in self.texts(column):
            codes, counts = self._encode(text, offsets)
            yield Block(first, codes.astype(self.dtype, copy=False), counts, done)

    def texts(self, column: Column) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool]]:
        """The text of a column as the tokenizer sees it, block by block: (first row, uint8 bytes,
        int64 offsets of rows in them, whether the last of them ends here)."""
        for first, text, offsets, done in self._blocks(column):
            if self.lower:
                text, offsets = in_lower_case(text, offsets)
            yield first, text, offsets, done

    @abstractmethod
    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        """The text of codes; danlu's own are left out, but for UNKNOWN, which reads as U+FFFD. Half
        a character reads as U+FFFD too."""

    @abstractmethod
    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of codes: of half a character, half its bytes."""

    @property
    @abstractmethod
    def byte_lengths(self) -> np.ndarray | None:
        """See the class."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON values that danlu.tokenizing.restore makes an equal tokenizer of."""

    @abstractmethod
    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(codes, number of codes in each row) of rows of UTF-8 bytes."""

    @abstractmethod
    def _cut(self, text: bytes) -> int:
        """A place in `text`, near its end, where cutting it changes no code; 0 where there is none.
        Its last character may be cut off."""

    def _blocks(self, column: Column) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool]]:
        """(first row, bytes, offsets, True) of rows together at most `block` bytes long; of a
        longer row piece by piece."""
        assert column.offsets is not None
        ends = column.offsets
        start, rows = 0, len(column)
        while start < rows:
            begin = int(ends[start])
            stop = int(np.searchsorted(ends, begin + self.block, side="right")) - 1
            stop = min(max(stop, start + 1), rows)
            if int(ends[stop]) - begin > self.block and (
                column.missing is None or not column.missing[start]
            ):  # one row
                for piece, done in self._pieces(column.values, begin, int(ends[stop])):
                    yield start, piece, np.array([0, len(piece)], dtype=np.int64), done
            else:
                offsets = np.asarray(ends[start : stop + 1], dtype=np.int64) - begin
                text = np.asarray(column.values[begin : int(ends[stop])])
                lost = None if column.missing is None else column.missing[start:stop]
                if lost is not None and lost.any():
                    text, offsets = _without(text, offsets, np.asarray(lost))
                yield start, text, offsets, True
            start = stop

    def _pieces(
        self, values: np.ndarray, begin: int, end: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        size = self.block
        while begin < end:
            piece = np.asarray(values[begin : min(begin + size, end)])
            if begin + size >= end:
                yield piece, True
                return
            position = self._cut(piece.tobytes())
            if position <= 0:  # nowhere to cut: look further
                size *= 2
                continue
            yield piece[:position], False
            begin, size = begin + position, self.block


def as_column(texts: Texts, mend: bool = True) -> Column:
    """A list of strings or bytes as a text column. Half a surrogate pair becomes a question mark
    and, to `mend` bytes, what is no UTF-8 becomes U+FFFD."""
    if isinstance(texts, Column):
        return texts
    if isinstance(texts, str | bytes):
        raise TypeError("give a list of texts, not one text")
    data = [text.encode("utf-8", "replace") if isinstance(text, str) else text for text in texts]
    if mend:
        data = [
            text.decode("utf-8", "replace").encode("utf-8") if isinstance(original, bytes) else text
            for text, original in zip(data, texts)
        ]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in data])]).astype(np.int64)
    return Column("", "text", np.frombuffer(b"".join(data), dtype=np.uint8), offsets=offsets)


def in_lower_case(text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of the same rows in small letters, character for character."""
    codes = unicode_classes.code_points(text)
    lower, _ = unicode_classes.lower_and_class(codes)
    if len(codes) == len(text) and (not len(lower) or lower.max() < 0x80):
        return lower.astype(np.uint8), offsets
    before = np.concatenate([[0], np.cumsum(unicode_classes.widths(codes))])
    after = np.concatenate([[0], np.cumsum(unicode_classes.widths(lower))])
    return unicode_classes.utf8(lower), after[np.searchsorted(before, offsets)]


def _without(
    text: np.ndarray, offsets: np.ndarray, lost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same rows, those `lost` of no length."""
    lengths = np.diff(offsets)
    kept = np.repeat(~lost, lengths)
    return text[kept], np.concatenate([[0], np.cumsum(np.where(lost, 0, lengths))]).astype(np.int64)
