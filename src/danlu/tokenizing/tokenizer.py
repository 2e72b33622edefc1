"""The base class of all tokenizers: text encoded block by block, lower-cased where wanted."""

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
    """The codes of some rows.

    first    the first row
    codes    (T,), the codes of these rows one after the other
    counts   int64 (rows,), the number of codes of each row in this block
    done     whether the last row ends here (a long row comes in several blocks)"""

    first: int
    codes: np.ndarray
    counts: np.ndarray
    done: bool

    @property
    def rows(self) -> slice:
        """The rows that have codes here."""
        return slice(self.first, self.first + len(self.counts))


class Tokenizer(ABC):
    """Text to codes and back. Codes below danlu.terms.FIRST_TOKEN are danlu's special tokens in
    every kind; no text is encoded as PADDING, BEGINNING, END or MASK, whatever it spells.

    kind           one of danlu.tokenizing.KINDS
    size           how many codes there are; codes are 0 to size - 1
    lower          whether text is lower-cased first
    byte_lengths   int64 (size,), bytes of text that each code stands for (0 for special tokens),
                   from which bits per byte are computed; None where codes do not keep all text
                   (words lose the spaces between them)
    """

    kind: str
    block = 4 << 20  # bytes of text worked on at a time

    def __init__(self, size: int, lower: bool = False) -> None:
        self.size = size
        self.lower = lower

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of codes: uint16 where all of them fit, else uint32."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    def encode(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
        """(codes (T,) of `dtype`, offsets int64 (N + 1,)): the codes of text i are
        codes[offsets[i]:offsets[i+1]].

        `texts` is a text column or a list of strings (or UTF-8 bytes). A missing row has no codes.
        Codes of more than danlu.reading.growing_array.LIMIT bytes are stored in a memory-mapped
        temporary file."""
        column = as_column(texts, mend=self.lower or self.kind != "bytes")
        lengths = np.zeros(len(column), dtype=np.int64)
        codes = GrowingArray(self.dtype)
        for block in self.stream(column):
            codes.append(block.codes)
            lengths[block.rows] += block.counts
        return codes.finish(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def stream(self, column: Column) -> Iterator[Block]:
        """Encodes a text column block by block. A row longer than a block comes in several blocks,
        cut where that changes no code."""
        for first, text, offsets, done in self.texts(column):
            codes, counts = self._encode(text, offsets)
            yield Block(first, codes.astype(self.dtype, copy=False), counts, done)

    def texts(self, column: Column) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool]]:
        """The text of a column as the tokenizer encodes it (lower-cased where wanted), block by
        block: (first row, uint8 bytes, int64 offsets of the rows in them, whether the last row ends
        in this block)."""
        for first, text, offsets, done in self._blocks(column):
            if self.lower:
                text, offsets = in_lower_case(text, offsets)
            yield first, text, offsets, done

    @abstractmethod
    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        """The text of codes (T,). Special tokens are left out, except UNKNOWN, which becomes
        U+FFFD; an incomplete character becomes U+FFFD too."""

    @abstractmethod
    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        """The UTF-8 bytes of codes (T,); of an incomplete character those bytes that are there."""

    @property
    @abstractmethod
    def byte_lengths(self) -> np.ndarray | None:
        """See the class."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The tokenizer as JSON values; danlu.tokenizing.restore builds an equal one from them."""

    @abstractmethod
    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(codes, number of codes in each row) of rows of UTF-8 bytes; row i is
        text[offsets[i]:offsets[i+1]]."""

    @abstractmethod
    def _cut(self, text: bytes) -> int:
        """A position in `text`, near its end, at which cutting changes no code; 0 where there is
        none. The last character of `text` may be incomplete."""

    def _blocks(self, column: Column) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool]]:
        """(first row, bytes, offsets, True) of rows that together have at most `block` bytes; a
        longer row comes piece by piece, with True at its last piece."""
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
    """A list of strings or bytes as a text column. Half a surrogate pair becomes a question mark;
    with `mend`, bytes that are not UTF-8 become U+FFFD.

    >>> column = as_column(["ab", b"c"])
    >>> column.text(0), column.text(1), column.offsets.tolist()
    ('ab', 'c', [0, 2, 3])
    """
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
    """(UTF-8 bytes, offsets) of the same rows in lower case, character for character.

    >>> in_lower_case(np.frombuffer(b"AbC", np.uint8), np.array([0, 3]))[0].tobytes()
    b'abc'
    """
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
    """The same rows; those `lost` (bool (rows,)) become empty."""
    lengths = np.diff(offsets)
    kept = np.repeat(~lost, lengths)
    return text[kept], np.concatenate([[0], np.cumsum(np.where(lost, 0, lengths))]).astype(np.int64)
