"""Parallel texts: files whose lines correspond, such as sentences and their translations.

A path names all files of a split, with the columns in braces: corpus/train.{de,en}.gz reads
train.de.gz as column "de" and train.en.gz as column "en"; {articles,summaries}/train.txt reads two
folders. Row n holds line n of each file (plain or gzip). Line ends and spaces around a line are not
part of it; an empty line is a missing value. The corpora of WMT, OPUS and Moses have this format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from danlu.errors import DataError
from danlu.reading import charsets
from danlu.reading import files as disk
from danlu.reading.lines import check_is_text, split_lines
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = ("}", "}.gz", "}.txt", "}.txt.gz")
_BRACES = re.compile(r"\{([^{}]*)\}")
_SPACE = np.zeros(256, dtype=bool)
_SPACE[[9, 11, 12, 13, 32]] = True


def _one_pair_of_braces(path: str) -> str:
    if "{" in path or "}" in path:
        _names(path)
    return path


def _names(path: str) -> list[str]:
    """The columns that a path names; [] without braces."""
    braces = _BRACES.findall(path)
    if not braces and "{" not in path and "}" not in path:
        return []
    names = braces[0].split(",") if len(braces) == 1 else []
    if (
        not names
        or len(set(names)) < len(names)
        or not all(re.fullmatch(r"[\w-]+", name) for name in names)
    ):
        raise ValueError(
            "must name its columns in one pair of braces, each once, as in corpus/train.{de,en}.gz"
        )
    return names


Braced = Annotated[str, AfterValidator(_one_pair_of_braces)]


class Config(Options):
    """The files."""

    path: Braced = Field(description="The files, their columns in braces: corpus/train.{de,en}.gz.")
    validation: Braced | None = Field(
        default=None,
        description="Files whose rows are the validation split, with the same columns.",
    )
    test: Braced | None = Field(
        default=None, description="Files whose rows are the test split, with the same columns."
    )
    encoding: charsets.Encoding = Field(
        default="auto", description="The character encoding (utf-8, gb18030, ...), or auto."
    )

    @model_validator(mode="after")
    def _same_columns(self) -> Config:
        for name in ("validation", "test"):
            path = getattr(self, name)
            if path is not None and _names(path) != _names(self.path):
                raise ValueError(
                    f"{name} names the columns {_column_list(path)}, and path names "
                    f"{_column_list(self.path)}: give them the same"
                )
        return self


def _column_list(path: str) -> str:
    return ", ".join(_names(path)) or "no column"


def files(config: Config) -> list[Path]:
    """The files of path, then those of validation and test; each in the order of the columns."""
    return [path for _, inside in _by_split(config) for path in inside]


def version(config: Config) -> str:
    """The names of the columns, which the content of the files does not contain."""
    return ",".join(_names(config.path))


def _by_split(config: Config) -> list[tuple[int, list[Path]]]:
    options = ((0, config.path), (1, config.validation), (2, config.test))
    return [(code, _files_of(path)) for code, path in options if path is not None]


def _files_of(path: str) -> list[Path]:
    names = _names(path)
    if not names:
        disk.check_file(Path(path))
        raise DataError(
            "this is one file, and no column is named.",
            where=path,
            hint="write train.{de,en} for train.de and train.en",
        )
    return [Path(_BRACES.sub(name, path)) for name in names]


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of all files, one split after the other."""
    splits = _by_split(config)
    labels = dict(zip(paths := files(config), disk.display_names(paths)))
    notices: list[str] = []
    read = {path: _lines(path, labels[path], config.encoding, notices) for path in paths}
    for _, inside in splits:
        _refuse_unequal([(labels[path], *read[path]) for path in inside])
    counts = [len(read[inside[0]][1]) for _, inside in splits]
    names = _names(config.path)
    several = len(splits) > 1
    return Table(
        columns={
            name: _column(name, [read[inside[index]] for _, inside in splits])
            for index, name in enumerate(names)
        },
        origin=Path(config.path).name,
        row_numbers=np.concatenate([np.arange(1, count + 1) for count in counts]),
        files=tuple(
            Path(path).name for path in (config.path, config.validation, config.test) if path
        )
        if several
        else (),
        file_numbers=np.repeat(np.arange(len(splits), dtype=np.int32), counts) if several else None,
        notices=tuple(notices),
        split=np.repeat(np.array([code for code, _ in splits], dtype=np.int8), counts)
        if several
        else None,
    )


def _lines(
    path: Path, name: str, encoding: str, notices: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes of all lines, int64 length of each line) of a file, without spaces around
    lines."""
    text = charsets.decode_text(disk.read_file(path), name, encoding)
    if text.reason:
        notices.append(f"{name}: read as {text.encoding}, since {text.reason}.")
    check_is_text(text.content, name)
    return _stripped(*split_lines(text.content))


def _stripped(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines without the spaces before and after them."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    solid = np.flatnonzero(~_SPACE[values])
    if not len(solid):
        return values[:0], np.zeros_like(lengths)
    first = np.append(solid, len(values))[np.searchsorted(solid, starts)]
    last = np.insert(solid, 0, -1)[np.searchsorted(solid, ends)]
    kept = np.maximum(np.minimum(last + 1, ends) - first, 0)
    inside = np.zeros(len(values) + 1, dtype=np.int64)
    some = kept > 0
    np.add.at(inside, first[some], 1)
    np.add.at(inside, first[some] + kept[some], -1)
    return values[np.cumsum(inside[:-1]) > 0], kept


def _refuse_unequal(read: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """DataError naming two files of a split with different numbers of lines, and where the shorter
    one ends."""
    name, _, lengths = read[0]
    for other, _, other_lengths in read[1:]:
        if len(other_lengths) != len(lengths):
            shorter, longer = sorted([(len(lengths), name), (len(other_lengths), other)])
            raise DataError(
                f"the file ends after {shorter[0]:,} lines, and {longer[1]} has {longer[0]:,}: "
                "so it is unknown which lines belong together.",
                where=f"{shorter[1]} row {shorter[0]:,}",
                hint="give both files one line per row; look for a line break inside a sentence",
            )


def _column(name: str, pieces: list[tuple[np.ndarray, np.ndarray]]) -> Column:
    """The text of all splits; an empty line is missing."""
    lengths = np.concatenate([sizes for _, sizes in pieces])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.concatenate([values for values, _ in pieces])
    return Column(
        name, "text", values, offsets=offsets, missing=lengths == 0, reason="text: one row a line"
    )
