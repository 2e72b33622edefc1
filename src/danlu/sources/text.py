"""Text files: one row a line, or one row a file.

Column: "text" (UTF-8). A line's end is not part of it; empty lines are rows too, so that the rows joined by line ends are the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.assembly import by_split
from danlu.reading.lines import lines, refuse_no_text
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = (".txt", ".txt.gz")


class Config(Options):
    """Which files, and what a row is."""

    path: str | list[str] = Field(description="A file, a folder of .txt files, a pattern (books/*.txt), or a list of them.")
    validation: str | list[str] | None = Field(default=None, description="Files whose rows are the validation split.")
    test: str | list[str] | None = Field(default=None, description="Files whose rows are the test split.")
    unit: Literal["line", "document"] = Field(default="line", description="What a row is: a line, or a whole file.")
    encoding: charsets.Encoding = Field(default="auto", description="The character encoding (utf-8, gb18030, ...), or auto.")


def files(config: Config) -> list[Path]:
    """The files of the table, then those of validation and test."""
    return [path for _, paths in _by_split(config) for path in paths]


def _by_split(config: Config) -> list[tuple[int, list[Path]]]:
    return by_split(config.path, config.validation, config.test, SUFFIXES)


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of all files, one below the other; see danlu.sources."""
    splits = _by_split(config)
    paths = [path for _, inside in splits for path in inside]
    names = disk.labels(paths)
    texts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    notices: list[str] = []
    for path, name in zip(paths, names):
        text = charsets.decode(disk.read(path), name, config.encoding)
        if text.reason:
            notices.append(f"{name}: read as {text.encoding}, since {text.reason}.")
        values, sizes = _rows(text.content, name, config.unit)
        texts.append(values)
        lengths.append(sizes)
    counts = [len(sizes) for sizes in lengths]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    column = Column("text", "text", np.concatenate(texts), offsets=offsets, reason=f"text: one row a {config.unit}")
    several = len(names) > 1
    codes = np.array([code for code, inside in splits for _ in inside], dtype=np.int8)
    return Table(
        columns={"text": column},
        origin=f"{names[0]} and {len(names) - 1} more" if several else names[0],
        row_names=names if config.unit == "document" else None,
        row_numbers=np.concatenate([np.arange(1, count + 1) for count in counts]),
        files=tuple(names) if several else (),
        file_numbers=np.repeat(np.arange(len(names), dtype=np.int32), counts) if several else None,
        notices=tuple(notices),
        split=np.repeat(codes, counts) if len(splits) > 1 else None,
        joined_by="\n" if config.unit == "line" else "",
    )


def _rows(content: bytes, name: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes of all rows, int64 length of each row)."""
    refuse_no_text(content, name)
    if unit == "document":
        return np.frombuffer(content, dtype=np.uint8), np.array([len(content)], dtype=np.int64)
    return lines(content)
