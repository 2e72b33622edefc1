"""Several files to one table; each row keeps its file, its row number there and its split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from danlu.errors import DataError
from danlu.reading.files import display_names, expand_paths
from danlu.recipe import ColumnOptions
from danlu.terms import Column, Table

Paths = str | list[str]
MakeColumns = Callable[[Mapping[str, Any], Callable[[int], str], list[str]], dict[str, Column]]


@dataclass(frozen=True)
class FileContent:
    """What one file holds.

    columns       column name -> its values, a pyarrow array or a list, one value per row
    row_numbers   int64 (rows,), the 1-based number of each row in the file
    notices       sentences for the reader"""

    columns: Mapping[str, Any]
    row_numbers: np.ndarray
    notices: list[str] = field(default_factory=list)


def files_by_split(
    path: Paths, validation: Paths | None, test: Paths | None, suffixes: Iterable[str]
) -> list[tuple[int, list[Path]]]:
    """[(split code, its files)]: 0 train, 1 validation, 2 test; splits without a path are left out.

    `suffixes` choose the files of a folder. DataError where a folder or pattern matches no file."""
    endings = tuple(suffixes)
    return [
        (code, expand_paths(paths, endings))
        for code, paths in ((0, path), (1, validation), (2, test))
        if paths
    ]


def concatenate_files(
    splits: Sequence[tuple[int, list[Path]]],
    read: Callable[[Path, str], FileContent],
    make: MakeColumns,
    options: Mapping[str, ColumnOptions],
    loose: bool = False,
) -> Table:
    """The table of all files: the rows of the first, then those of the second, ...

    `read(path, name)` returns the FileContent of a file; `name` is what messages call it.
    `make(values, where, notices)` returns the typed columns of the concatenated values by name;
    `where(row)` names a row in messages, and `make` may append to `notices`. In image columns (see
    `options`) a relative path starts at the folder of the file that holds it. `loose`: a column
    that a file lacks is missing in that file's rows; otherwise it is a DataError."""
    paths = [path for _, inside in splits for path in inside]
    names = display_names(paths)
    pieces = [read(path, name) for path, name in zip(paths, names)]
    columns = _columns_of(pieces, names, loose)
    lengths = [len(piece.row_numbers) for piece in pieces]
    codes = [code for code, inside in splits for _ in inside]
    several = len(names) > 1
    bare = Table(
        columns={},
        origin=f"{names[0]} and {len(names) - 1} more" if several else names[0],
        row_numbers=np.concatenate([piece.row_numbers for piece in pieces]),
        files=tuple(names) if several else (),
        file_numbers=np.repeat(np.arange(len(pieces), dtype=np.int32), lengths)
        if several
        else None,
        split=np.repeat(np.array(codes, dtype=np.int8), lengths) if len(splits) > 1 else None,
    )
    images = {name for name, column_options in options.items() if column_options.kind == "image"}
    joined = {
        name: _joined(name, [_values(piece, name) for piece in pieces], names)
        for name in columns
        if name not in images
    }
    joined |= {name: _beside(name, pieces, paths) for name in columns if name in images}
    joined = {name: joined[name] for name in columns}
    notices = [notice for piece in pieces for notice in piece.notices]
    typed = make(joined, bare.where, notices)
    return Table(**{**bare.__dict__, "columns": typed, "notices": tuple(notices)})


def _columns_of(pieces: Sequence[FileContent], names: Sequence[str], loose: bool) -> list[str]:
    if loose:
        return list(dict.fromkeys(name for piece in pieces for name in piece.columns))
    first = list(pieces[0].columns)
    for piece, file in zip(pieces[1:], names[1:]):
        lost = [name for name in first if name not in piece.columns]
        more = [name for name in piece.columns if name not in first]
        if lost or more:
            difference = (
                f"has no column {lost[0]}, which {names[0]} has"
                if lost
                else f"has a column {more[0]}, which {names[0]} has not"
            )
            raise DataError(
                f"the file {difference}.", where=file, hint="give all files the same columns"
            )
    return first


def _values(piece: FileContent, name: str) -> Any:
    return piece.columns[name] if name in piece.columns else [None] * len(piece.row_numbers)


def _beside(name: str, pieces: Sequence[FileContent], paths: Sequence[Path]) -> list[Any]:
    """The cells of an image column, relative paths joined to the folder of their own file."""
    cells: list[Any] = []
    for piece, path in zip(pieces, paths):
        values = _values(piece, name)
        values = values if isinstance(values, list) else values.to_pylist()
        cells += [
            str(path.parent / cell) if isinstance(cell, str) and cell else cell for cell in values
        ]
    return cells


def _joined(name: str, values: list[Any], names: Sequence[str]) -> Any:
    """The values of all files as one list, or as one pyarrow array of their common type."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(part, list) for part in values):
        return [value for part in values for value in part]
    import pyarrow as pa

    tables = [pa.table({"": part}) for part in values]
    try:
        return pa.concat_tables(tables, promote_options="permissive").column(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        types = " and ".join(dict.fromkeys(str(table.schema.types[0]) for table in tables))
        raise DataError(
            f"column {name} holds {types} in different files.",
            where=names[0],
            hint="give it one type",
        ) from None
