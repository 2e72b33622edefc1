"""Text files of any size: one row per line, or one row per file.

Column: "text" (UTF-8). Line ends are not part of a row; empty lines are rows too, so that the rows
joined by line ends are the file. Large text is written to a temporary file (in the folder named by
TMPDIR) and memory-mapped, so that memory does not limit it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.growing_array import GrowingArray
from danlu.reading.lines import check_is_text, split_lines
from danlu.reading.multi_file import files_by_split
from danlu.reading.text_blocks import lines_of_blocks, open_text
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = (".txt", ".txt.gz")
LONG = (
    32 << 20
)  # bytes of a file from which on it is read block by block; of a compressed one, a tenth of it


class Config(Options):
    """The files, and whether a row is a line or a file."""

    path: str | list[str] = Field(
        description="A file, a folder of .txt files, a pattern (books/*.txt), or a list of them."
    )
    validation: str | list[str] | None = Field(
        default=None, description="Files whose rows are the validation split."
    )
    test: str | list[str] | None = Field(
        default=None, description="Files whose rows are the test split."
    )
    unit: Literal["line", "document"] = Field(
        default="line", description="What a row is: a line, or a whole file."
    )
    encoding: charsets.Encoding = Field(
        default="auto", description="The character encoding (utf-8, gb18030, ...), or auto."
    )


def files(config: Config) -> list[Path]:
    """The files of the table, then those of validation and test."""
    return [path for _, paths in _by_split(config) for path in paths]


def _by_split(config: Config) -> list[tuple[int, list[Path]]]:
    return files_by_split(config.path, config.validation, config.test, SUFFIXES)


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of all files in their order."""
    splits = _by_split(config)
    paths = [path for _, inside in splits for path in inside]
    names = disk.display_names(paths)
    rows = _Rows(several=len(paths) > 1)
    for path, name in zip(paths, names):
        rows.add(path, name, config)
    codes = np.array([code for code, inside in splits for _ in inside], dtype=np.int8)
    return Table(
        columns={"text": rows.column(f"text: one row a {config.unit}")},
        origin=f"{names[0]} and {len(names) - 1} more" if rows.several else names[0],
        row_names=names if config.unit == "document" else None,
        row_numbers=rows.numbers.finish() if rows.several else None,
        files=tuple(names) if rows.several else (),
        file_numbers=rows.files.finish() if rows.several else None,
        notices=tuple(rows.notices),
        split=np.repeat(codes, rows.counts) if len(splits) > 1 else None,
        continues=rows.goes_on.finish() if config.unit == "line" else None,
        joined_by="\n" if config.unit == "line" else "",
    )


class _Rows:
    """Collects the rows of all files; large arrays are kept on disk."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.text, self.offsets = GrowingArray(np.uint8), GrowingArray(np.int64)
        self.numbers, self.files, self.goes_on = (
            GrowingArray(np.int64),
            GrowingArray(np.int32),
            GrowingArray(np.bool_),
        )
        self.offsets.append(np.zeros(1))
        self.counts: list[int] = []
        self.notices: list[str] = []
        self.end = 0

    def add(self, path: Path, name: str, config: Config) -> None:
        """Add the rows of a file."""
        encoding, reason, pieces = _pieces(path, name, config)
        count = 0
        for values, sizes in pieces:
            self.text.append(values)
            if not len(sizes):
                continue
            if count:
                self.goes_on.append(np.ones(1))
            self.goes_on.append(np.ones(len(sizes) - 1))
            self.offsets.append(self.end + np.cumsum(sizes))
            if self.several:
                self.numbers.append(np.arange(count + 1, count + 1 + len(sizes)))
                self.files.append(np.full(len(sizes), len(self.counts)))
            self.end += int(sizes.sum())
            count += len(sizes)
        self.goes_on.append(np.zeros(1))  # of the last row of the file
        self.counts.append(count)
        if reason:
            self.notices.append(f"{name}: read as {encoding}, since {reason}.")

    def column(self, reason: str) -> Column:
        """The text of all rows."""
        return Column(
            "text", "text", self.text.finish(), offsets=self.offsets.finish(), reason=reason
        )


def _pieces(
    path: Path, name: str, config: Config
) -> tuple[str, str, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """(the encoding of a file, the reason for it, and an iterator over pieces: bytes, and lengths
    of the rows that end in them)."""
    if disk.check_file(path).st_size >= (LONG // 10 if path.suffix == ".gz" else LONG):
        encoding, reason, blocks = open_text(path, name, config.encoding)
        return (
            encoding,
            reason,
            lines_of_blocks(blocks) if config.unit == "line" else _whole(blocks),
        )
    text = charsets.decode_text(disk.read_file(path), name, config.encoding)
    check_is_text(text.content, name)
    return (
        text.encoding,
        text.reason,
        iter([split_lines(text.content)])
        if config.unit == "line"
        else _whole(iter([text.content])),
    )


def _whole(blocks: Iterator[bytes]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The blocks of one text as pieces of a single row, which ends in the last piece."""
    total = 0
    for block in blocks:
        total += len(block)
        yield np.frombuffer(block, dtype=np.uint8), np.zeros(0, dtype=np.int64)
    yield np.zeros(0, dtype=np.uint8), np.array([total], dtype=np.int64)
