"""The records of a delimited text: where each begins and ends, its number of fields, its cells.

`scan` finds the structure of a whole text with array operations, and checks that every quote is
where RFC 4180 allows it (around a whole field, doubled inside). pyarrow then cuts such a regular
text into columns, and the result is compared with the structure found here. Every other text is
read field by field by `fields`, which refuses what is ambiguous."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from danlu.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 2**24
_LF, _CR, _SPACE, _TAB = 10, 13, 32, 9


@dataclass(frozen=True)
class Records:
    """The structure of a delimited text of R records, blank ones included.

    starts, ends   int64 (R,), first byte of each record, and the byte after its last one
    fields         int64 (R,), number of fields
    lines          int64 (R,), 1-based line on which it begins (a quoted field may hold line ends)
    regular        whether quotes are only around whole fields
    open_line      the line of a quote that is never closed, or 0
    """

    starts: np.ndarray
    ends: np.ndarray
    fields: np.ndarray
    lines: np.ndarray
    regular: bool
    open_line: int

    def __len__(self) -> int:
        return len(self.starts)


def scan(content: bytes, delimiter: str, quote: str) -> Records:
    """The structure of a text; `delimiter` "" means one field per record, `quote` "" means that
    there is no quote character.

    >>> scan(b"a;b\\n1;2\\n", ";", '"').fields
    array([2, 2])
    """
    data = np.frombuffer(content, dtype=np.uint8)
    classes = np.zeros(256, dtype=np.uint8)
    classes[[_LF, _CR]] = 1
    if delimiter:
        classes[ord(delimiter)] = 2
    if quote:
        classes[ord(quote)] = 3
    regular, quotes, fields_before = True, 0, 0
    breaks: list[np.ndarray] = []  # ends of lines outside quotes
    counts: list[np.ndarray] = []  # delimiters before each of them, in the whole text
    physical: list[np.ndarray] = []  # ends of lines anywhere
    last_quote = -1
    for begin in range(0, len(data), _BLOCK):
        kind = classes[data[begin : begin + _BLOCK]]
        at = np.flatnonzero(kind)
        kind, at = kind[at], at + begin
        newline = kind == 1
        newline[newline] = _ends_line(data, at[newline])
        is_quote = kind == 3
        inside = ((np.cumsum(is_quote) + quotes) & 1).astype(bool)
        if is_quote.any():
            regular = regular and _regular(data, at[is_quote], inside[is_quote], classes)
            quotes += int(is_quote.sum())
            last_quote = int(at[is_quote][-1])
        outside = ~inside
        delimiters = np.cumsum((kind == 2) & outside)
        ends = newline & outside
        physical.append(at[newline])
        breaks.append(at[ends])
        counts.append(delimiters[ends] + fields_before)
        fields_before += int(delimiters[-1]) if len(delimiters) else 0
    return _assemble(
        data, breaks, counts, physical, fields_before, regular, last_quote if quotes & 1 else -1
    )


def _ends_line(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Which of the line-end characters at `at` end a line: every LF, and a CR that no LF
    follows."""
    following = data[np.minimum(at + 1, len(data) - 1)]
    return (data[at] == _LF) | (following != _LF) | (at + 1 == len(data))


def _regular(data: np.ndarray, at: np.ndarray, opening: np.ndarray, classes: np.ndarray) -> bool:
    """Whether every opening quote begins a field, and every closing one ends it or is doubled."""
    before = classes[data[at[opening] - 1]]
    before[at[opening] == 0] = 1
    closing = at[~opening]
    after = classes[data[np.minimum(closing + 1, len(data) - 1)]]
    after[closing + 1 == len(data)] = 1
    return bool((before > 0).all() and (after > 0).all())


def _assemble(
    data: np.ndarray,
    breaks: list[np.ndarray],
    counts: list[np.ndarray],
    physical: list[np.ndarray],
    total: int,
    regular: bool,
    open_quote: int,
) -> Records:
    none = np.zeros(0, dtype=np.int64)
    stops = np.concatenate([none, *breaks]).astype(np.int64)
    before = np.concatenate([none, *counts]).astype(np.int64)
    newlines = np.concatenate([none, *physical]).astype(np.int64)
    if len(data) and (not len(stops) or stops[-1] != len(data) - 1):  # the last line has no end
        stops, before = np.append(stops, len(data)), np.append(before, total)
    starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64) if len(stops) else none
    ends = stops.copy()
    crlf = (
        (ends > starts)
        & (data[np.maximum(ends - 1, 0)] == _CR)
        & (data[np.minimum(ends, len(data) - 1)] == _LF)
        if len(ends)
        else ends > 0
    )
    ends -= crlf
    fields = np.diff(before, prepend=0) + 1
    lines = np.searchsorted(newlines, starts) + 1
    open_line = int(np.searchsorted(newlines, open_quote) + 1) if open_quote >= 0 else 0
    return Records(starts, ends, fields, lines, regular, open_line)


# --- field by field


def fields(
    content: bytes, delimiter: str, quote: str, escape: str, name: str
) -> Iterator[tuple[int, int, int, list[str]]]:
    """(start, end, line, cells) of each record of a text whose quotes are not regular.

    Spaces around a quoted field are not part of it; a quote inside an unquoted field is an ordinary
    character. DataError for text after a closing quote, and for a quote that is never closed.
    """
    text = content.decode("utf-8")
    pattern = _patterns(delimiter, quote, escape)
    position, line, number = 0, 1, 0
    length = len(text)
    spent = 0  # bytes before `position`
    while position < length:
        number += 1
        start, begin, cells = position, spent, []
        while True:
            match = pattern.match(text, position)
            assert match is not None  # the last alternative matches everything
            if match["open"] is not None:
                raise _bad_quote(
                    text,
                    position,
                    match,
                    quote,
                    name,
                    number,
                    line + text.count("\n", start, position),
                    len(cells) + 1,
                )
            cells.append(_cell(match, quote, escape))
            position = match.end()
            if position < length and delimiter and text[position] == delimiter:
                position += 1
                continue
            break
        piece = text[start:position]
        end = begin + len(piece.encode("utf-8"))
        yield begin, end, line, cells
        if text.startswith("\r\n", position):
            position, spent = position + 2, end + 2
        else:
            position, spent = position + 1, end + 1
        line += piece.count("\n") + piece.count("\r") - piece.count("\r\n") + 1


def _patterns(delimiter: str, quote: str, escape: str) -> re.Pattern[str]:
    stop = re.escape(delimiter) + r"\r\n"
    if not quote:
        return re.compile(rf"(?P<plain>[^{stop}]*)(?P<quoted>(?!))?(?P<open>(?!))?")
    q = re.escape(quote)
    pairs = rf"{q}{q}|{re.escape(escape)}." if escape else f"{q}{q}"
    inner = rf"[^{q}{re.escape(escape)}]*(?:(?:{pairs})[^{q}{re.escape(escape)}]*)*"
    blank = "[ ]*" if delimiter == "\t" else r"[ \t]*"
    return re.compile(
        rf"{blank}{q}(?P<quoted>{inner}){q}{blank}(?=[{stop}]|\Z)|(?P<open>{blank}{q})|(?P<plain>[^{stop}]*)",
        re.DOTALL,
    )


def _cell(match: re.Match[str], quote: str, escape: str) -> str:
    quoted = match["quoted"]
    if quoted is None:
        return match["plain"]
    cell = quoted.replace(quote + quote, quote)
    return re.sub(re.escape(escape) + "(.)", r"\1", cell, flags=re.DOTALL) if escape else cell


def _bad_quote(
    text: str,
    position: int,
    match: re.Match[str],
    quote: str,
    name: str,
    number: int,
    line: int,
    field: int,
) -> DataError:
    after = match.end()
    mark = re.escape(quote)
    closing = re.compile(rf"[^{mark}]*(?:{mark * 2}[^{mark}]*)*{mark}").match(text, after)
    hint = (
        "double the quotes inside a quoted field, or set data.source.quote to none where "
        "quotes are plain characters"
    )
    where = f"{name} {row_and_line(number, line)}"
    if closing is None:
        return DataError(
            f"the quote that opens field {field} is never closed.", where=where, hint=hint
        )
    shown = text[closing.end() : closing.end() + 20].split("\n")[0].strip()
    return DataError(
        f"the closing quote of field {field} is followed by {shown!r}, and the field must end "
        "there.",
        where=where,
        hint=hint,
    )


def row_and_line(number: int, line: int) -> str:
    """'row 12', or with the line where quoted line ends make them differ.

    >>> row_and_line(12, 17)
    'row 12 (line 17)'
    """
    return f"row {number:,}" if number == line else f"row {number:,} (line {line:,})"


def table(
    content: bytes, records: Records, kept: np.ndarray, width: int, delimiter: str, quote: str
) -> list[pa.ChunkedArray] | None:
    """The cells of the records `kept` (int64, ascending) of a regular text, one string array per
    column; None where pyarrow finds another structure."""
    import pyarrow as pa
    from pyarrow import csv

    piece = _joined(content, records, kept)
    longest = int((records.ends[kept] - records.starts[kept]).max(initial=0))
    if longest > 2**30:
        return None
    names = [str(number) for number in range(width)]
    spread = bool(quote) and bool(
        (np.diff(records.lines) > 1).any()
        or content[records.starts[-1] : records.ends[-1]].count(b"\n")
    )
    try:
        read = csv.read_csv(
            pa.py_buffer(piece),
            read_options=csv.ReadOptions(
                column_names=names, block_size=max(2**20, 2 * longest + 1024)
            ),
            parse_options=csv.ParseOptions(
                delimiter=delimiter or "\x1f",
                quote_char=quote or False,
                double_quote=bool(quote),
                escape_char=False,
                newlines_in_values=spread,
                ignore_empty_lines=False,
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    if read.num_rows != len(kept) or read.num_columns != width:
        return None
    return [read.column(name) for name in names]


def _joined(content: bytes, records: Records, kept: np.ndarray) -> bytes | memoryview:
    """The bytes of the kept records, without a copy where they are adjacent."""
    if not len(kept):
        return b""
    view = memoryview(content)
    cuts = np.flatnonzero(np.diff(kept) > 1) + 1
    groups = np.split(kept, cuts)
    pieces = [view[records.starts[group[0]] : records.ends[group[-1]]] for group in groups]
    return pieces[0] if len(pieces) == 1 else b"\n".join(pieces)
