"""Tables in JSON Lines (one object per line, plain or gzip), or a .json file with one array.

A key is a column; an object without the key has a missing value there. The types of the file are
kept: a string stays a category or text. Lists with equally many numbers become one column of
several numbers, lists of strings a sequence, lists of lists of numbers frames; other nested values
are refused unless the recipe sets the column's `use` to false. Large files are read line by line,
and columns of texts are written to a temporary file (in the folder named by TMPDIR) and
memory-mapped, so that memory does not limit a corpus; whether strings are categories or text is
then decided by the first rows. Source of the format: https://jsonlines.org"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from danlu.errors import DataError
from danlu.parts.sources._long_rows import LongRows, column_of, nested
from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.columns import infer_column
from danlu.reading.multi_file import FileContent, concatenate_files, files_by_split
from danlu.reading.text_blocks import open_text
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
NAMES_IMAGES = True
LONG = (
    32 << 20
)  # bytes of a file from which on it is read line by line; of a compressed one, a tenth of it
_MOST_DIGITS = 400  # more than any float64 has


class Config(Options):
    """The files."""

    path: str | list[str] = Field(
        description="A file, a folder of files, a pattern (data/*.jsonl), or a list of them."
    )
    validation: str | list[str] | None = Field(
        default=None, description="Files whose rows are the validation split."
    )
    test: str | list[str] | None = Field(
        default=None, description="Files whose rows are the test split."
    )
    encoding: charsets.Encoding = Field(
        default="auto", description="The character encoding; JSON is UTF-8 by its standard."
    )


def files(config: Config) -> list[Path]:
    """The files of the table, then those of validation and test."""
    return [path for _, paths in _by_split(config) for path in paths]


def _by_split(config: Config) -> list[tuple[int, list[Path]]]:
    return files_by_split(config.path, config.validation, config.test, SUFFIXES)


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of all files in their order."""

    def make(
        joined: Mapping[str, Any], where: Callable[[int], str], notices: list[str]
    ) -> dict[str, Column]:
        used = {name: values for name, values in joined.items() if _is_used(name, values, columns)}
        return {
            name: infer_column(
                name,
                _flat(name, values, where),
                columns.get(name),
                where,
                typed=True,
                notices=notices,
            )
            for name, values in used.items()
        }

    if any(_is_long(path) for path in files(config)):
        return concatenate_files(
            _by_split(config),
            lambda path, name: _read_long(path, name, config, columns),
            _made_long(columns),
            columns,
            loose=True,
        )
    return concatenate_files(
        _by_split(config), lambda path, name: _read(path, name, config), make, columns, loose=True
    )


def _is_long(path: Path) -> bool:
    """Whether a file is too large to be read at once; a file with a single array is always read at
    once."""
    if disk.check_file(path).st_size < (LONG // 10 if path.suffix == ".gz" else LONG):
        return False
    head = next(disk.read_blocks(path), b"")
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"["


def _made_long(columns: Mapping[str, ColumnOptions]) -> Callable[..., dict[str, Column]]:
    def make(
        joined: Mapping[str, Any], where: Callable[[int], str], notices: list[str]
    ) -> dict[str, Column]:
        return {
            name: infer_column(name, values, columns.get(name), where, typed=True, notices=notices)
            if isinstance(values, list)
            else column_of(name, values, columns.get(name), where, notices)
            for name, values in joined.items()
        }

    return make


def _read_long(
    path: Path, name: str, config: Config, columns: Mapping[str, ColumnOptions]
) -> FileContent:
    """The rows of a file of any length, with only a few blocks in memory."""
    encoding, reason, blocks = open_text(path, name, config.encoding)
    rows = LongRows(frozenset(name for name, options in columns.items() if not options.use))
    numbers = []
    for first, lines in _in_blocks(blocks):
        there = [(first + nth, line) for nth, line in enumerate(lines) if line.strip()]
        chunks = [
            _object(_parsed(line, f"{name} row {number:,}"), f"{name} row {number:,}")
            for number, line in there
        ]
        rows.add(chunks, lambda row, there=there: f"{name} row {there[row][0]:,}")  # type: ignore[misc]
        numbers.append(np.array([number for number, _ in there], dtype=np.int64))
    if not rows.count:
        raise DataError("the file is empty.", where=name, hint="check the file")
    if not rows.columns and not rows.left_out:
        raise DataError(
            "the objects have no key.", where=name, hint="check that it is the right file"
        )
    notices = [f"{name}: read as {encoding}, since {reason}."] if reason else []
    return FileContent(rows.finish(), np.concatenate(numbers), notices)


def _in_blocks(blocks: Iterator[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(1-based number of the first line, lines) of each block of a text."""
    number, parts = 1, []
    for block in blocks:
        parts.append(block)
        if b"\n" not in block:
            continue
        lines = b"".join(parts).split(b"\n")
        parts = [lines.pop()]
        yield number, lines
        number += len(lines)
    yield number, [b"".join(parts)]


def _is_used(name: str, values: list[Any], columns: Mapping[str, ColumnOptions]) -> bool:
    """Whether a column is used, or at least holds no nested values."""
    return (
        name not in columns
        or columns[name].use
        or not any(isinstance(value, dict | list) for value in values)
    )


def _flat(name: str, values: list[Any], where: Callable[[int], str]) -> list[Any]:
    for row, value in enumerate(values):
        if isinstance(value, dict):
            raise nested(name, where(row))
    return values


def _read(path: Path, name: str, config: Config) -> FileContent:
    text = charsets.decode_text(disk.read_file(path), name, config.encoding)
    if not text.content.strip():
        raise DataError("the file is empty.", where=name, hint="check the file")
    rows, numbers = (
        _array(text.content, name)
        if text.content.lstrip()[:1] == b"["
        else _lines(text.content, name)
    )
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not names:
        raise DataError(
            "the objects have no key.", where=name, hint="check that it is the right file"
        )
    notices = [f"{name}: read as {text.encoding}, since {text.reason}."] if text.reason else []
    return FileContent(
        {key: [row.get(key) for row in rows] for key in names},
        np.array(numbers, dtype=np.int64),
        notices,
    )


def _lines(content: bytes, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{name} row {number:,}")
        rows.append(_object(row, f"{name} row {number:,}"))
        numbers.append(number)
    return rows, numbers


def _array(content: bytes, name: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of one JSON array; DataError for JSON Lines whose lines are arrays."""
    first = content.lstrip().split(b"\n", 1)[0].strip()
    if first.endswith(b"]") and first != content.strip():
        line = content[: content.index(b"[")].count(b"\n") + 1
        raise DataError(
            "the line holds an array, where an object with column names is needed.",
            where=f"{name} row {line:,}",
            hint=_HINT,
        )
    rows = _parsed(content, name)
    if not isinstance(rows, list) or not rows:
        raise DataError("the array holds no object.", where=name, hint=_HINT)
    return [
        _object(row, f"{name} row {number:,}") for number, row in enumerate(rows, start=1)
    ], list(range(1, len(rows) + 1))


_HINT = 'a row is {"column": value, ...}'


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        words = {list: "an array", str: "a string", type(None): "null", bool: "true or false"}
        raise DataError(
            f"{words.get(type(row), 'a number')} stands where an object with column names is "
            "needed.",
            where=where,
            hint=_HINT,
        )
    return row


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_whole,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        position = (
            f"line {error.lineno:,}, character {error.colno:,}"
            if error.lineno > 1
            else f"character {error.colno:,}"
        )
        raise DataError(
            f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]} at {position}.",
            where=where,
            hint="mend the row",
        ) from None
    except RecursionError:
        raise DataError(
            "the values are nested too deep.", where=where, hint="mend the row"
        ) from None
    except ValueError as error:
        raise DataError(f"{error}.", where=where, hint="mend the row") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one "
            "object"
        )
    return values


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(
            f"a whole number of {len(digits):,} digits is larger than any that can be computed with"
        )
    return int(digits)


def _constant(word: str) -> float | None:
    """NaN, which Python writes for a missing number, and Infinity, which a later check refuses with
    the name of its column."""
    return None if word == "NaN" else float(word)
