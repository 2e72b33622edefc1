"""Tables in delimited text: CSV, TSV and similar formats, plain or gzip.

Encoding, delimiter, quote, header, decimal mark, and lines above and below the table are detected
and reported in a notice; each can be set. Ambiguous files are refused with row and line: rows of
unequal length, quotes that do not close, two columns with the same name. Row numbers in messages
count the file's rows from 1, including the header and skipped lines, as a spreadsheet does.

Records follow RFC 4180 (https://www.rfc-editor.org/rfc/rfc4180); in addition, spaces around a
quoted field are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from danlu.errors import DataError
from danlu.parts.sources import _csv_dialect as dialect
from danlu.parts.sources import _csv_records as records
from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.arrow import compute
from danlu.reading.columns import MISSING_MARKS, infer_column
from danlu.reading.multi_file import FileContent, concatenate_files, files_by_split
from danlu.reading.number_formats import decimal_mark
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = (".csv", ".tsv", ".data", ".csv.gz", ".tsv.gz", ".data.gz")
_WORKBOOKS = (".xlsx", ".xls", ".ods")  # claimed so that the error can name the remedy
SUFFIXES = (*_TABLES, *_WORKBOOKS)
NAMES_IMAGES = True


class Config(Options):
    """The files, and their format; what is "auto" or null is detected."""

    path: str | list[str] = Field(
        description="A file, a folder of files, a pattern (data/*.csv), or a list of them."
    )
    validation: str | list[str] | None = Field(
        default=None, description="Files whose rows are the validation split."
    )
    test: str | list[str] | None = Field(
        default=None, description="Files whose rows are the test split."
    )
    delimiter: str = Field(
        default="auto",
        description="What separates fields: one character, tab, whitespace (runs of spaces), "
        "none, or auto.",
    )
    encoding: charsets.Encoding = Field(
        default="auto", description="The character encoding (utf-8, gb18030, cp1252, ...), or auto."
    )
    header: bool | Literal["auto"] | list[str] = Field(
        default="auto",
        description="Whether the first row names the columns, or a list of names.",
    )
    decimal: Literal["auto", ".", ","] = Field(
        default="auto", description="The decimal mark; auto: detected per column, then per file."
    )
    quote: str = Field(
        default="auto",
        description="The quote around fields that hold delimiters: one character, none, or auto.",
    )
    escape: str = Field(
        default="",
        max_length=1,
        description="A character that escapes the next one, such as \\.",
    )
    comment: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Lines beginning with it are skipped; null: # unless rows begin with it.",
    )
    skip_rows: int | None = Field(
        default=None, ge=0, description="Lines above the header to skip; null: detected."
    )
    skip_end: int | None = Field(
        default=None,
        ge=0,
        description="Lines at the end to skip; null: notes after a blank line.",
    )
    missing: list[str] = Field(
        default=list(MISSING_MARKS),
        description="Texts that mean a missing value, besides the empty cell.",
    )
    trim: dict[str, str] = Field(
        default={},
        description="A suffix to remove from a column's values, by its name: {income: '.'}.",
    )

    @field_validator("delimiter")
    @classmethod
    def _one_delimiter(cls, value: str) -> str:
        if value not in ("auto", "tab", "whitespace", "none") and (
            len(value) != 1 or value in '"\r\n' or not value.isascii()
        ):
            raise ValueError("must be one ASCII character, tab, whitespace, none or auto")
        return value

    @field_validator("quote")
    @classmethod
    def _one_quote(cls, value: str) -> str:
        if value not in ("auto", "none") and (
            len(value) != 1 or value in "\r\n" or not value.isascii()
        ):
            raise ValueError("must be one ASCII character, none or auto")
        return value

    @field_validator("header")
    @classmethod
    def _names_differ(cls, value: Any) -> Any:
        if isinstance(value, list):
            twice = [name for number, name in enumerate(value) if name in value[:number]]
            if twice or not value:
                raise ValueError(
                    f"names the column {twice[0]} twice"
                    if twice
                    else "must name at least one column"
                )
        return value


def files(config: Config) -> list[Path]:
    """The files of the table, then those of validation and test."""
    return [path for _, paths in _by_split(config) for path in paths]


def _by_split(config: Config) -> list[tuple[int, list[Path]]]:
    return files_by_split(config.path, config.validation, config.test, _TABLES)


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of all files in their order."""

    def make(
        joined: Mapping[str, Any], where: Callable[[int], str], notices: list[str]
    ) -> dict[str, Column]:
        return _columns(config, columns, joined, where, notices)

    column_names = frozenset(columns)
    table = concatenate_files(
        _by_split(config), lambda path, name: _read(path, name, config, column_names), make, columns
    )
    return replace(table, notices=(*table.notices, *_endings(table)))


def _columns(
    config: Config,
    options: Mapping[str, ColumnOptions],
    recipe_columns: Mapping[str, Any],
    where: Callable[[int], str],
    notices: list[str],
) -> dict[str, Column]:
    joined = dict(recipe_columns)
    for name, ending in config.trim.items():
        if name in joined:
            pattern = re.escape(ending) + r"\s*$"
            joined[name] = compute().replace_substring_regex(
                joined[name], pattern=pattern, replacement="", max_replacements=1
            )
    notices_of: dict[str, list[str]] = {name: [] for name in joined}

    def column(name: str, decimal: str | None) -> Column:
        notices_of[name].clear()
        return infer_column(
            name,
            joined[name],
            options.get(name),
            where,
            missing=config.missing,
            decimal=decimal,
            notices=notices_of[name],
        )

    columns = {
        name: column(name, None if config.decimal == "auto" else config.decimal) for name in joined
    }
    open_ones = [name for name, read_column in columns.items() if "assumed: " in read_column.reason]
    if open_ones and config.decimal == "auto":
        mark = _agreed(joined)
        columns |= {name: column(name, mark) for name in open_ones if mark}
    notices += _together(
        [sentence for read_column in notices_of.values() for sentence in read_column]
    )
    return columns


def _agreed(joined: Mapping[str, pa.ChunkedArray]) -> str | None:
    """The decimal mark of all columns that show one; None where they differ or none does."""
    marks = {
        decimal_mark(values.slice(0, 10_000).combine_chunks()) for values in joined.values()
    } - {None}
    return marks.pop() if len(marks) == 1 else None


def _together(notices: list[str]) -> list[str]:
    """The notices, with an assumption that several columns share stated once."""
    shared = [sentence for sentence in notices if "Nothing in the column decides it" in sentence]
    if len(shared) < 3:
        return notices
    more = f"{shared[0]} The same is assumed in {len(shared) - 1} more columns."
    return [*(sentence for sentence in notices if sentence not in shared), more]


def _endings(table: Table) -> list[str]:
    """What to set where categories end with a point in one file and without one in another, as in
    adult.test."""
    notices = []
    for name, column in table.columns.items() if table.split is not None else ():
        plain = set(column.categories)
        pointed = [
            category
            for category in column.categories
            if category.endswith(".") and category[:-1] in plain
        ]
        if pointed and len(pointed) * 2 == len(plain):
            row = int(np.flatnonzero(column.values == column.categories.index(pointed[0]))[0])
            notices.append(
                f"column {name}: {table.where(row)} holds {pointed[0]!r} where other files hold "
                f"{pointed[0][:-1]!r}; "
                f"set data.source.trim to {{{name}: '.'}} to make them one."
            )
    return notices


# --- one file


def _read(path: Path, name: str, config: Config, column_names: frozenset[str]) -> FileContent:
    import pyarrow as pa

    content = disk.read_file(path)
    _refuse_other_formats(content, path, name)
    text = charsets.decode_text(content, name, config.encoding)
    _refuse_nul(text.content, name)
    if not text.content.strip():
        raise DataError(
            "the file is empty." if not content else "the file holds only blank lines.",
            where=name,
            hint="check the file",
        )
    options = dialect.DialectOptions(
        delimiter=config.delimiter,
        quote=config.quote,
        escape=config.escape,
        header=config.header,
        comment=config.comment,
        skip_rows=config.skip_rows,
        skip_end=config.skip_end,
        missing=("", *config.missing),
        column_names=column_names,
    )
    layout = dialect.find_layout(
        text.content, name, options, "".join(path.suffixes[-2:]).lower().removesuffix(".gz")
    )
    width = len(layout.names)
    arrays = None
    if layout.cells is None:
        arrays = records.table(
            layout.content, layout.records, layout.rows, width, layout.delimiter, layout.quote
        )
    if arrays is None:
        rows = layout.cells or [
            row
            for *_, row in records.fields(
                layout.content, layout.delimiter, layout.quote, config.escape, name
            )
        ]
        arrays = [
            pa.chunked_array([pa.array([rows[row][number] for row in layout.rows], pa.string())])
            for number in range(width)
        ]
    notices = list(layout.notices)
    if text.reason:
        notices.append(f"{name}: read as {text.encoding}, since {text.reason}.")
    named = dict(zip(layout.names, arrays))
    _drop_unnamed(named, notices, name)
    return FileContent(named, layout.rows + 1, notices)


def _drop_unnamed(named: dict[str, pa.ChunkedArray], notices: list[str], name: str) -> None:
    """Drop a last column without name or values: it comes from a delimiter at the end of each
    row."""
    last = list(named)[-1]
    called = any(f"column {len(named)} has no name" in notice for notice in notices)
    if (
        called
        and len(named) > 1
        and compute().all(compute().equal(compute().utf8_trim_whitespace(named[last]), "")).as_py()
    ):
        del named[last]
        notices.append(
            f"{name}: {last} holds no value and is left out (a delimiter ends every row)."
        )


def _refuse_other_formats(content: bytes, path: Path, name: str) -> None:
    marks = {
        b"PK\x03\x04": (
            "an Excel workbook" if path.suffix.lower() in _WORKBOOKS else "a zip archive",
            "save it as CSV, or unpack it",
        ),
        b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save it as CSV"),
        b"PAR1": ("a Parquet file", "name the source parquet"),
        b"%PDF": ("a PDF document", "save the table as CSV"),
        b"SQLite format 3": ("a SQLite database", "export the table as CSV"),
        b"\x89PNG": ("an image", "name the source images"),
        b"\xff\xd8\xff": ("an image", "name the source images"),
        b"\x93NUMPY": ("a numpy array", "name the source numpy"),
        b"BZh": ("a bzip2 archive", "decompress it"),
        b"\xfd7zXZ": ("an xz archive", "decompress it"),
        b"(\xb5/\xfd": ("a zstd archive", "decompress it"),
    }
    for mark, (what, hint) in marks.items():
        if content.startswith(mark):
            raise DataError(f"this is {what}, not a text table.", where=name, hint=hint)
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DataError(
            "this is a web page or XML, not a text table.",
            where=name,
            hint="download the file itself",
        )


def _refuse_nul(content: bytes, name: str) -> None:
    at = content.find(b"\0")
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise DataError(
            f"byte {at + 1:,} is NUL, which is not part of any text.",
            where=f"{name} row {line:,}",
            hint="is it a binary file, or in an encoding to be named as data.source.encoding?",
        )
