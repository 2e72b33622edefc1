"""Column files (CoNLL): one word with its labels per line, an empty line between sentences.

A row of the table is a sentence, and every column a sequence over its words. Columns are separated
by spaces or tabs. Lines that begin with -DOCSTART- are skipped. In a .conllu file the ten columns
have their standard names (form, lemma, upos, ...), lines that begin with # are comments, and
multi-word tokens and empty nodes (numbered 3-4 or 5.1) are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from danlu.errors import DataError
from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.multi_file import files_by_split
from danlu.reading.word_lists import encode_words
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = (".conll", ".conllu", ".conll.gz", ".conllu.gz", ".bio", ".iob", ".iob2")
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_BOUNDARY = "-DOCSTART-"


class Config(Options):
    """The files, and the format of their lines."""

    path: str | list[str] = Field(
        description="A file, a folder of .conll files, a pattern (corpus/*.conll), or a list of "
        "them."
    )
    validation: str | list[str] | None = Field(
        default=None, description="Files whose sentences are the validation split."
    )
    test: str | list[str] | None = Field(
        default=None, description="Files whose sentences are the test split."
    )
    columns: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Names of the columns, in their order; null: word, column_2, ..., tag "
        "(those of CoNLL-U for .conllu).",
    )
    separator: Literal["auto", "space", "tab"] = Field(
        default="auto",
        description="What separates columns; auto: tabs if the first line holds one, else white "
        "space.",
    )
    comments: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether a line that begins with # is a comment; auto: in .conllu files.",
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
    notices: list[str] = []
    cells: list[list[list[str]]] = []
    lengths: list[np.ndarray] = []
    header = tuple(config.columns or ())
    for path, name in zip(paths, names):
        text = charsets.decode_text(disk.read_file(path), name, config.encoding)
        if text.reason:
            notices.append(f"{name}: read as {text.encoding}, since {text.reason}.")
        rows, sizes = _read(config, text.content.decode("utf-8"), name, _is_conllu(path), header)
        if cells and len(rows[0]) != len(header):
            message = f"the file has {len(rows[0])} columns, and {names[0]} has {len(header)}."
            raise DataError(message, where=name, hint="give all files the same columns")
        header = header[: len(rows[0])] or _header(len(rows[0]), _is_conllu(path))
        cells.append(rows)
        lengths.append(sizes)
    _refuse_other_kinds(header, columns, names[0])
    counts = [len(sizes) for sizes in lengths]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    several = len(names) > 1
    codes = np.array([code for code, inside in splits for _ in inside], dtype=np.int8)
    columns_read = {
        name: _column(name, (word for row in cells for word in row), index, offsets)
        for index, name in enumerate(header)
    }
    return Table(
        columns=columns_read,
        origin=f"{names[0]} and {len(names) - 1} more" if several else names[0],
        row_numbers=np.concatenate([np.arange(1, count + 1) for count in counts]),
        files=tuple(names) if several else (),
        file_numbers=np.repeat(np.arange(len(names), dtype=np.int32), counts) if several else None,
        notices=tuple(notices),
        split=np.repeat(codes, counts) if len(splits) > 1 else None,
    )


def _column(name: str, words: object, index: int, offsets: np.ndarray) -> Column:
    codes, categories = encode_words(word[index] for word in words)  # type: ignore[attr-defined]
    return Column(
        name,
        "sequence",
        codes,
        categories=categories,
        offsets=offsets,
        reason="sequence: a column of the words of sentences",
    )


def _is_conllu(path: Path) -> bool:
    return path.name.lower().endswith((".conllu", ".conllu.gz"))


def _header(width: int, conllu: bool) -> tuple[str, ...]:
    if conllu and width == len(CONLLU):
        return CONLLU
    return (
        ("word", *(f"column_{number}" for number in range(2, width)), "tag")[:width]
        if width > 1
        else ("word",)
    )


def _read(
    config: Config, text: str, name: str, conllu: bool, header: Sequence[str]
) -> tuple[list[list[str]], np.ndarray]:
    """(the cells of every word, the number of words per sentence). DataError naming a line with
    more or fewer columns.

    All lines of a file have as many columns as its first. These may be fewer than `header` names: a
    file for prediction has no tags.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    comments = conllu if config.comments == "auto" else config.comments
    tab = config.separator == "tab" or (
        config.separator == "auto" and "\t" in _first(lines, comments)
    )
    rows: list[list[str]] = []
    sizes: list[int] = []
    begun = 0  # words before this sentence
    width = 0
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            if len(rows) > begun:
                sizes.append(len(rows) - begun)
                begun = len(rows)
            continue
        if (comments and line[0] == "#") or line.startswith(_BOUNDARY):
            continue
        cells = line.rstrip("\t ").split("\t") if tab else line.split()
        if conllu and not cells[0].isdecimal():
            continue
        width = width or min(len(cells), len(header) or len(cells))
        if len(cells) != width:
            raise _another_width(cells, width, f"{name} line {number:,}", tab)
        rows.append(cells)
    if len(rows) > begun:
        sizes.append(len(rows) - begun)
    if not rows:
        raise DataError("the file holds no word.", where=name, hint="check the file")
    return rows, np.array(sizes, dtype=np.int64)


def _first(lines: Sequence[str], comments: bool) -> str:
    """The first line that holds a word."""
    words = (
        line
        for line in lines
        if line.strip() and not (comments and line[0] == "#") and not line.startswith(_BOUNDARY)
    )
    return next(words, "")


def _another_width(cells: Sequence[str], width: int, where: str, tab: bool) -> DataError:
    shown = " ".join(cells)
    between = "tabs" if tab else "white space"
    return DataError(
        f"{shown[:60]!r} has {len(cells)} column{'s' * (len(cells) != 1)} between {between}, not "
        f"{width}.",
        where=where,
        hint="mend the line, or set data.source.separator (tab, space) or data.source.columns",
    )


def _refuse_other_kinds(
    header: Sequence[str], columns: Mapping[str, ColumnOptions], where: str
) -> None:
    if len(set(header)) < len(header):
        raise DataError(
            "two columns have the same name.",
            where=where,
            hint="name each once in data.source.columns",
        )
    for name, options in columns.items():
        if name in header and options.kind not in (None, "sequence"):
            raise DataError(
                f"the column holds one word per line, so it is a sequence, not {options.kind}.",
                where=f"{where}, column {name}",
                hint=f"leave data.columns.{name}.kind out",
            )
