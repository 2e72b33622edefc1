"""The dialect of a delimited text, detected: delimiter, quote, the rows of the table, its header.

The delimiter is the candidate for which most records have the same number of fields. Lines above
the table (titles, comments) and notes below it are skipped only if they cannot be rows; a row that
is merely too short or too long is never dropped: it is an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

import numpy as np

from danlu.errors import DataError
from danlu.parts.sources import _csv_records as records
from danlu.parts.sources._csv_records import Records, row_and_line

_SAMPLE = 2**18  # bytes that are examined to find the delimiter
_CANDIDATES = ("\t", ",", ";", "|")
_NAMES = {
    ",": "commas",
    "\t": "tabs",
    ";": "semicolons",
    "|": "bars",
    " ": "spaces",
    "": "nothing (one column)",
}
_NUMBER = re.compile(r"[-+−]?(\d[\d.,' ]*|[.,]\d+)([eE][-+]?\d+)?%?$")
_DATE = re.compile(r"\d{1,4}[-/.年]\d{1,2}[-/.月]\d{1,4}日?([T ].*)?$")
_DECLARED = re.compile(rb"sep=(.)\r?\n")  # the first line of a file from Excel
_MOST_ABOVE = 50  # most records above a table
_MOST_BELOW = 20  # most records below it
_LOOKED_AT = 200  # rows that are examined to recognise a header


@dataclass(frozen=True)
class DialectOptions:
    """What the recipe sets; None (or "auto") for what is to be detected."""

    delimiter: str = "auto"
    quote: str = "auto"
    escape: str = ""
    header: bool | str | list[str] = "auto"
    comment: str | None = None
    skip_rows: int | None = None
    skip_end: int | None = None
    missing: Sequence[str] = ("",)
    # names of columns in the recipe or a trained model: a first row with one of them is the header
    column_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Layout:
    """The position of the table in a text.

    rows       int64 (N,), the records that are its rows
    names      its columns
    cells      the cells of every record, if irregular quotes made reading one by one necessary;
               else None
    notices    what was detected and what was skipped, as sentences
    """

    content: bytes
    records: Records
    rows: np.ndarray
    names: list[str]
    delimiter: str
    quote: str
    cells: list[list[str]] | None = None
    notices: list[str] = field(default_factory=list)


def find_layout(content: bytes, name: str, options: DialectOptions, suffix: str = ".csv") -> Layout:
    """The layout of the table in a text (UTF-8). DataError naming row and line where its rows do
    not fit together."""
    notices: list[str] = []
    content, delimiter = _separated(content, name, options, suffix, notices)
    quote = _quote(content, options.quote)
    if not delimiter and options.delimiter == "auto":
        delimiter = _delimiter(content, quote, suffix)
        if delimiter == " ":
            content, quote = _tabbed(content, name), ""
            notices.append("fields are separated by spaces")
            delimiter = "\t"
    scanned, cells, quote = _records(content, delimiter, quote, options, name, notices)
    if not delimiter and options.delimiter == "auto":
        _refuse_commas(content, name, quote)
    table = _Table(content, scanned, cells, delimiter, quote, options, name, notices)
    rows = table.rows()
    names, rows = table.header(rows)
    notices.insert(0, _summary(name, delimiter, names, notices))
    return Layout(content, scanned, rows, names, delimiter, quote, cells, notices)


def _summary(name: str, delimiter: str, names: list[str], notices: list[str]) -> str:
    separated = (
        "one column"
        if not delimiter
        else f"{len(names)} columns separated by {_NAMES.get(delimiter, repr(delimiter))}"
    )
    listing = "; ".join(notices)
    notices.clear()
    return f"{name}: {separated}{'; ' if listing else ''}{listing}."


# --- delimiter and quote


def _separated(
    content: bytes, name: str, options: DialectOptions, suffix: str, notices: list[str]
) -> tuple[bytes, str]:
    """(the text, the delimiter that the recipe or its first line sets, else "")."""
    declared = _DECLARED.match(content[:8])
    if declared and options.delimiter == "auto" and options.skip_rows is None:
        notices.append("the first line declares the delimiter")
        return content, declared[1].decode("utf-8", "replace")
    if options.delimiter == "whitespace":
        notices.append("fields are separated by spaces")
        return _tabbed(content, name), "\t"
    return content, {"auto": "", "none": "", "tab": "\t"}.get(options.delimiter, options.delimiter)


def _tabbed(content: bytes, name: str) -> bytes:
    """The text with each run of spaces and tabs as one tab, and none at either end of lines."""
    if b'"' in content:
        line = content[: content.index(b'"')].count(b"\n") + 1
        raise DataError(
            "a quote in a text whose fields are separated by spaces.",
            where=f"{name} row {line:,}",
            hint="name the delimiter as data.source.delimiter",
        )
    content = re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", content)
    return re.sub(rb"[ \t]+", b"\t", content)


def _quote(content: bytes, option: str) -> str:
    if option != "auto":
        return "" if option == "none" else option
    if b'"' in content or b"'" not in content:
        return '"'
    sample = content[:_SAMPLE]
    for delimiter in _CANDIDATES:  # 'single quotes' if they are always around whole fields
        scanned = records.scan(sample, delimiter, "'")
        if scanned.regular and not scanned.open_line and scanned.fields.max(initial=1) > 1:
            return "'"
    return '"'


def _delimiter(content: bytes, quote: str, suffix: str) -> str:
    """The delimiter for which most records have the same number of fields; " " for runs of spaces,
    "" for a single column."""
    sample = (
        content
        if len(content) <= _SAMPLE
        else content[: content.rfind(b"\n", 0, _SAMPLE) + 1 or _SAMPLE]
    )
    scores: list[tuple[float, bool, float, int, str]] = []
    for number, delimiter in enumerate(
        ("\t", *_CANDIDATES[1:]) if suffix.startswith(".tsv") else (",", "\t", ";", "|")
    ):
        counts = _counts(sample, delimiter, quote)
        width, agreeing = Counter(counts).most_common(1)[0] if counts else (1, 0)
        several = Counter(count for count in counts if count > 1)
        if width == 1 and several and several.most_common(1)[0][1] > len(counts) / 2:
            width, agreeing = several.most_common(1)[0]
        if width > 1:
            cells = [cell for row in _cells(sample, delimiter, quote, _LOOKED_AT) for cell in row]
            # Whether the header agrees too decides for "6,10;b;12,19" below "v;c;y": both
            # delimiters give every row three fields with equally many numbers.
            scores.append(
                (
                    round(agreeing / len(counts), 1),
                    agreeing == len(counts),
                    _plain_share(cells),
                    -number,
                    delimiter,
                )
            )
    if scores:
        return max(scores)[4]
    lines = [
        line.split() for line in sample.decode("utf-8", "replace").splitlines() if line.strip()
    ]
    flat = [cell for line in lines[:_LOOKED_AT] for cell in line]
    if '"' not in quote or b'"' not in sample:
        widths = {len(line) for line in lines}
        if len(lines) > 1 and len(widths) == 1 and max(widths) > 1 and _plain_share(flat) > 0.5:
            return " "
    return ""


def _counts(sample: bytes, delimiter: str, quote: str) -> list[int]:
    """The number of fields of each record of a sample, without blank ones."""
    scanned = records.scan(sample, delimiter, quote)
    if scanned.regular:
        filled = scanned.ends > scanned.starts
        counts = scanned.fields[filled].tolist()
        return counts[:-1] if scanned.open_line and len(counts) > 1 else counts
    return [len(cells) for cells in _cells(sample, delimiter, quote) if any(cells)]


def _cells(sample: bytes, delimiter: str, quote: str, most: int | None = None) -> list[list[str]]:
    """The cells of the sample's records, as far as they can be read."""
    rows: list[list[str]] = []
    try:
        for *_, cells in islice(records.fields(_whole(sample), delimiter, quote, "", ""), most):
            rows.append(cells)
    except DataError:
        if not rows:
            rows = [
                line.split(delimiter) for line in sample.decode("utf-8", "replace").splitlines()
            ]
    return rows


def _whole(sample: bytes) -> bytes:
    return sample.decode("utf-8", "ignore").encode("utf-8")


def _plain_share(cells: list[str]) -> float:
    """The share of cells that are numbers or dates."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    plain = sum(bool(_NUMBER.match(cell) or _DATE.match(cell)) for cell in filled)
    return round(plain / max(len(filled), 1), 2)


def _refuse_commas(content: bytes, name: str, quote: str) -> None:
    """DataError if a single column was detected and a record holds commas: they may separate cells
    or be part of a text."""
    scanned = records.scan(content, ",", quote)
    several = np.flatnonzero(scanned.fields > 1)
    if len(several) and scanned.regular:
        row = int(several[0])
        raise DataError(
            f"the row has {scanned.fields[row]} fields separated by commas, and most rows have 1.",
            where=f"{name} {row_and_line(row + 1, int(scanned.lines[row]))}",
            hint="mend the row, or set data.source.delimiter to none if the file is one column "
            "of text",
        )


def _records(
    content: bytes,
    delimiter: str,
    quote: str,
    options: DialectOptions,
    name: str,
    notices: list[str],
) -> tuple[Records, list[list[str]] | None, str]:
    """(structure, cells if they had to be read one by one, the quote in effect)."""
    scanned = records.scan(content, delimiter, quote)
    if scanned.regular and not scanned.open_line and not options.escape:
        return scanned, None, quote
    try:
        return *_one_by_one(content, delimiter, quote, options.escape, name), quote
    except DataError:
        if options.quote != "auto" or delimiter != "\t":
            raise
        plain = records.scan(content, delimiter, "")
        filled = plain.fields[plain.ends > plain.starts]
        # with tabs all records have the same number of fields: quotes are ordinary characters
        if len(filled) and (filled == filled[0]).all() and filled[0] > 1:
            notices.append("quotes are plain characters")
            return plain, None, ""
        raise


def _one_by_one(
    content: bytes, delimiter: str, quote: str, escape: str, name: str
) -> tuple[Records, list[list[str]]]:
    starts, ends, lines, cells = [], [], [], []
    for start, end, line, row in records.fields(content, delimiter, quote, escape, name):
        starts.append(start)
        ends.append(end)
        lines.append(line)
        cells.append(row)
    widths = [len(row) for row in cells]
    arrays = [np.array(values, dtype=np.int64) for values in (starts, ends, widths, lines)]
    return Records(arrays[0], arrays[1], arrays[2], arrays[3], regular=False, open_line=0), cells


# --- the table in the text


class _Table:
    """The rows of one text: which records are rows, and which of them is the header."""

    def __init__(
        self,
        content: bytes,
        scanned: Records,
        cells: list[list[str]] | None,
        delimiter: str,
        quote: str,
        options: DialectOptions,
        name: str,
        notices: list[str],
    ) -> None:
        self.content = content
        self.scanned = scanned
        self.read = cells
        self.delimiter = delimiter
        self.quote = quote
        self.options = options
        self.name = name
        self.notices = notices
        self.width = 1
        self.declared = (
            options.skip_rows is None
            and options.delimiter == "auto"
            and bool(_DECLARED.match(content[:8]))
        )

    def at(self, record: int) -> str:
        return f"{self.name} {row_and_line(record + 1, int(self.scanned.lines[record]))}"

    def cells(self, record: int) -> list[str]:
        """The cells of one record, spaces trimmed."""
        if self.read is not None:
            return [cell.strip() for cell in self.read[record]]
        piece = self.content[self.scanned.starts[record] : self.scanned.ends[record]]
        row = next(
            records.fields(piece, self.delimiter, self.quote, "", self.name), (0, 0, 0, [""])
        )[3]
        return [cell.strip() for cell in row]

    def filled(self, record: int) -> int:
        return sum(bool(cell) for cell in self.cells(record))

    def rows(self) -> np.ndarray:
        """The records of the table, including its header; each has self.width fields."""
        blank = self.blank()
        kept = np.flatnonzero(~blank)
        kept = self.without_skipped(kept)
        kept = self.without_comments(kept)
        if not len(kept):
            raise DataError(
                "the file holds no row.", where=self.name, hint="check that it is the right file"
            )
        self.width = self.common_width(kept)
        kept = self.without_title(kept)
        kept = self.without_notes(kept, blank)
        kept = self.without_empty(kept, blank)
        self.refuse_ragged(kept)
        return kept

    def blank(self) -> np.ndarray:
        """Which records are empty or hold only spaces, bool (records,)."""
        lengths = self.scanned.ends - self.scanned.starts
        blank = lengths == 0
        for record in (
            np.flatnonzero((self.scanned.fields == 1) & ~blank & (lengths < 1000))
            if self.delimiter
            else ()
        ):
            piece = self.content[self.scanned.starts[record] : self.scanned.ends[record]]
            blank[record] = not piece.strip() or piece == (self.quote * 2).encode()
        return blank

    def without_skipped(self, kept: np.ndarray) -> np.ndarray:
        if self.options.skip_rows or self.declared:
            kept = kept[kept >= (self.options.skip_rows or 1)]
        if self.options.skip_end:
            kept = kept[kept < len(self.scanned) - self.options.skip_end]
        return kept

    def without_comments(self, kept: np.ndarray) -> np.ndarray:
        mark = self.options.comment or "#"
        first = (
            np.frombuffer(self.content, dtype=np.uint8)[self.scanned.starts[kept]]
            if len(kept)
            else np.zeros(0, np.uint8)
        )
        marked = first == ord(mark)
        # a detected comment must not have the number of fields of a row
        if self.options.comment is None:
            common = Counter(self.scanned.fields[kept].tolist()).most_common(1)
            marked &= self.scanned.fields[kept] != (common[0][0] if common else 0)
        if marked.any():
            self.notices.append(
                f"{int(marked.sum()):,} comment lines beginning with {mark} are left out"
            )
        return kept[~marked]

    def common_width(self, kept: np.ndarray) -> int:
        counts = Counter(self.scanned.fields[kept].tolist())
        if isinstance(self.options.header, list):
            return (
                len(self.options.header)
                if counts.get(len(self.options.header))
                else counts.most_common(1)[0][0]
            )
        widest = [
            width for width, count in counts.most_common() if width > 1 and 2 * count > len(kept)
        ]
        return widest[0] if widest else counts.most_common(1)[0][0]

    def without_title(self, kept: np.ndarray) -> np.ndarray:
        """Without lines above the table: those with at most half the fields of a row, or with only
        the first of three or more cells filled."""
        if self.options.skip_rows is not None or self.width < 2:
            return kept
        above = 0
        while above < min(len(kept) - 1, _MOST_ABOVE):
            record = int(kept[above])
            fields = int(self.scanned.fields[record])
            short = fields != self.width and 2 * fields <= self.width and fields < self.width - 1
            lone = fields == self.width and self.width > 2 and not any(self.cells(record)[1:])
            if not (short or lone):
                break
            above += 1
        following = kept[above:]
        if above and (self.scanned.fields[following[:1]] == self.width).all():
            shown = "; ".join(
                " ".join(cell for cell in self.cells(int(record)) if cell)[:40]
                for record in kept[:above][:2]
            )
            self.notices.append(f"{_lines(above)} above the table left out ({shown})")
            return following
        return kept

    def without_notes(self, kept: np.ndarray, blank: np.ndarray) -> np.ndarray:
        """Without notes below the table: records with one filled cell, after a blank or empty
        record."""
        if self.options.skip_end is not None or self.width < 2:
            return kept
        below = 0
        while below < min(len(kept) - 2, _MOST_BELOW) and self.filled(int(kept[-1 - below])) == 1:
            below += 1
        if not below:
            return kept
        before, first = int(kept[-1 - below]), int(kept[-below])
        if not (blank[before + 1 : first].any() or self.filled(before) == 0):
            return kept
        shown = " ".join(self.cells(first)).strip()[:40]
        self.notices.append(f"{_lines(below)} below the table left out ({shown})")
        return kept[:-below]

    def without_empty(self, kept: np.ndarray, blank: np.ndarray) -> np.ndarray:
        """Without records whose cells are all empty; these and blank ones between rows are
        noted."""
        lengths = (self.scanned.ends - self.scanned.starts)[kept]
        empty = (
            (self.scanned.fields[kept] == self.width)
            & (lengths == self.width - 1)
            & (self.width > 1)
        )
        inside = blank[kept[0] : kept[-1] + 1] if len(kept) else blank[:0]
        count = int(empty.sum()) + int(inside.sum())
        if count:
            first = min(
                [
                    *(kept[empty][:1] + 1).tolist(),
                    *(np.flatnonzero(inside)[:1] + kept[0] + 1).tolist(),
                ]
            )
            self.notices.append(
                f"{count:,} empty row{'s' if count > 1 else ''} left out (the first: row {first:,})"
            )
        kept = kept[~empty]
        if not len(kept):
            raise DataError(
                "every row is empty.", where=self.name, hint="check that it is the right file"
            )
        return kept

    def refuse_ragged(self, kept: np.ndarray) -> None:
        ragged = kept[self.scanned.fields[kept] != self.width]
        if not len(ragged):
            return
        record = int(ragged[0])
        fields = int(self.scanned.fields[record])
        count = f"; {len(ragged):,} such rows" if len(ragged) > 1 else ""
        hint = "mend the row"
        if record == kept[0]:
            hint = (
                "set data.source.skip_rows if it is no row, or name the columns as "
                "data.source.header"
            )
        elif record == kept[-1]:
            hint = (
                "mend the row (is the file cut off?), or set data.source.skip_end if it is no row"
            )
        raise DataError(
            f"the row has {fields:,} field{'s' if fields > 1 else ''}, and "
            f"{len(kept) - len(ragged):,} of {len(kept):,} rows have {self.width:,}{count}.",
            where=self.at(record),
            hint=hint,
        )

    # the header

    def header(self, kept: np.ndarray) -> tuple[list[str], np.ndarray]:
        """(names of the columns, the rows without the header)."""
        option = self.options.header
        if isinstance(option, list):
            return self.given_names(option, kept)
        first = self.cells(int(kept[0]))
        if option is True or (option == "auto" and self.is_header(first, kept)):
            if len(kept) == 1:
                raise self.one_row(first, int(kept[0]))
            if kept[0]:
                self.notices.append(f"the header is row {int(kept[0]) + 1:,}")
            return self.names_of(first, int(kept[0])), self.without_repeats(kept)
        if option == "auto":
            self.notices.append(
                "no header was found, so the columns are named column_1 and so on (name them as "
                "data.source.header)"
            )
        return [f"column_{number}" for number in range(1, self.width + 1)], kept

    def without_repeats(self, kept: np.ndarray) -> np.ndarray:
        """The rows below the header, without those that repeat it (in concatenated files)."""
        lengths = (self.scanned.ends - self.scanned.starts)[kept]
        text = self.content[self.scanned.starts[kept[0]] : self.scanned.ends[kept[0]]]
        alike = [
            record
            for record in kept[1:][lengths[1:] == lengths[0]]
            if self.content.startswith(text, self.scanned.starts[record])
        ]
        if not alike:
            return kept[1:]
        self.notices.append(
            f"{_lines(len(alike))} repeating the header left out (the first: row "
            f"{int(alike[0]) + 1:,})"
        )
        return np.setdiff1d(kept[1:], alike)

    def one_row(self, cells: list[str], record: int) -> DataError:
        shown = ", ".join(cells)[:60]
        message = (
            "there is a header and no row below it"
            if self.options.header is True
            else f"there is one row ({shown}), a header or data"
        )
        return DataError(
            f"{message}.",
            where=self.at(record),
            hint="add rows, or set data.source.header to false if this is a row",
        )

    def given_names(self, names: list[str], kept: np.ndarray) -> tuple[list[str], np.ndarray]:
        if len(names) != self.width:
            raise DataError(
                f"the row has {self.width:,} fields, and data.source.header names {len(names):,} "
                "columns.",
                where=self.at(int(kept[0])),
                hint="name every column",
            )
        if self.cells(int(kept[0])) == [name.strip() for name in names]:
            self.notices.append(
                "the first row repeats the names of data.source.header and is left out"
            )
            kept = kept[1:]
        return list(names), kept

    def is_header(self, first: list[str], kept: np.ndarray) -> bool:
        """Whether the first row is a header, judged by comparing it with the rows below it."""
        rows = [self.cells(int(record)) for record in kept[1 : 1 + _LOOKED_AT]]
        if not rows or self.options.column_names & set(first):
            return True  # header() raises an error if this is the only row
        others = [row for row in rows if row != first]  # a header may be repeated further down
        rows = others if 2 * len(others) >= len(rows) else rows
        if self.many_unnamed(first):
            raise self.no_header(first, int(kept[0]))
        above, below, outside = (
            0,
            0,
            0,
        )  # columns that speak for a header, for a row, and numbers no row below comes near
        for name, cells in zip(first, zip(*rows)):
            filled = [cell for cell in cells if cell not in self.options.missing]
            if not filled or name in self.options.missing:
                continue
            plain = _plain_share(filled)
            distinct = set(filled)
            if _is_plain(name):
                below += plain > 0.5
                outside += plain > 0.5 and _is_outside(name, filled)
            elif plain >= 0.9:
                above += 1
            elif name in distinct:
                below += 1
            elif len(filled) >= 5 and 2 * len(distinct) <= len(filled):
                above += 1  # few distinct values, and the name is none of them
        if above == below and not below:
            self.notices.append(
                "row 1 is taken for the header, though nothing in the rows decides it "
                "(data.source.header: false if it is a row)"
            )
            return len(set(first)) == len(first)
        return above > below or (above == below == outside) or _in_steps(first, rows)

    def many_unnamed(self, first: list[str]) -> bool:
        unnamed = sum(not cell for cell in first)
        return unnamed > max(1, self.width // 4)

    def no_header(self, first: list[str], record: int) -> DataError:
        unnamed = sum(not cell for cell in first)
        return DataError(
            f"the first row fills only {self.width - unnamed} of {self.width} fields, so it "
            "cannot be the header.",
            where=self.at(record),
            hint="set data.source.skip_rows to the lines above the header, or "
            "data.source.header to a list of names",
        )

    def names_of(self, cells: list[str], record: int) -> list[str]:
        if self.many_unnamed(cells):
            raise self.no_header(cells, record)
        names = list(cells)
        for number, name in enumerate(cells):
            if not name:
                names[number] = f"column_{number + 1}"
                self.notices.append(
                    f"column {number + 1} has no name and is called column_{number + 1}"
                )
        for number, name in enumerate(names):
            if name in names[:number]:
                raise DataError(
                    f"the columns {names.index(name) + 1} and {number + 1} are both called "
                    f"{name!r}.",
                    where=self.at(record),
                    hint="rename one, or set data.source.header to a list of names and "
                    "data.source.skip_rows to the lines above the rows",
                )
        return names


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _is_plain(cell: str) -> bool:
    return bool(_NUMBER.match(cell) or _DATE.match(cell))


def _is_outside(cell: str, others: list[str]) -> bool:
    """Whether a number (a year above counts, say) is outside the range of the others."""
    try:
        number, numbers = float(cell), [float(other) for other in others]
    except ValueError:
        return False
    return not min(numbers) <= number <= max(numbers)


def _in_steps(first: list[str], rows: list[list[str]]) -> bool:
    """Whether the numbers of a first row are names in equal steps (1990, 2000, 2010), and those of
    the second row are not."""

    def steps(cells: list[str]) -> set[int]:
        whole = [
            int(cell) for cell in cells if cell.isascii() and cell.isdigit() and len(cell) < 10
        ]
        return {after - before for before, after in pairwise(whole)} if len(whole) > 2 else set()

    words = [name for name in first if name and not _is_plain(name)]
    return (
        len(steps(first)) == 1
        and 0 not in steps(first)
        and bool(words)
        and steps(rows[0]) != steps(first)
    )
