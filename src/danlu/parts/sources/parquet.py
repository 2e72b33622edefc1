"""Tables in Apache Parquet files; the types of the file are kept.

A string stays a category or text, a number a number. Lists with equally many numbers become one
column of several numbers, lists of strings a sequence, lists of lists of numbers frames; other
nested columns are refused unless the recipe sets their `use` to false. Source of the format:
https://parquet.apache.org/docs/file-format"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from danlu.errors import DataError, nearest
from danlu.reading import files as disk
from danlu.reading.columns import infer_column
from danlu.reading.multi_file import FileContent, concatenate_files, files_by_split
from danlu.recipe import ColumnOptions, Options
from danlu.system import machine
from danlu.terms import Column, Table

SUFFIXES = (".parquet", ".pq")
NAMES_IMAGES = True


class Config(Options):
    """The files, and which of their columns are read."""

    path: str | list[str] = Field(
        description="A file, a folder of files, a pattern (data/*.parquet), or a list of them."
    )
    validation: str | list[str] | None = Field(
        default=None, description="Files whose rows are the validation split."
    )
    test: str | list[str] | None = Field(
        default=None, description="Files whose rows are the test split."
    )
    only: list[str] | None = Field(default=None, description="The columns to read; null: all.")


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
        return {
            name: infer_column(name, values, columns.get(name), where, typed=True, notices=notices)
            for name, values in joined.items()
        }

    return concatenate_files(
        _by_split(config), lambda path, name: _read(path, name, config, columns), make, columns
    )


def _read(
    path: Path, name: str, config: Config, columns: Mapping[str, ColumnOptions]
) -> FileContent:
    import pyarrow as pa
    from pyarrow import parquet

    facts = disk.check_file(path)
    if not facts.st_size:
        raise DataError("the file is empty.", where=name, hint="check the file")
    try:
        with path.open("rb") as file:
            opened = parquet.ParquetFile(file, page_checksum_verification=True)
            # raised before pyarrow starts threads: a process that ends right after that may abort
            if not opened.metadata.num_rows:
                raise DataError(
                    "the file holds no row.", where=name, hint="check that it is the right file"
                )
            wanted = _wanted(opened.schema_arrow, name, config, columns)
            _room(opened.metadata, len(wanted), name)
            table = opened.read(columns=wanted, use_threads=True)
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError) as error:
        if isinstance(error, PermissionError):
            raise disk.unreadable_file_error(path, error) from None
        cause = str(error).split("\n")[0].rstrip(".")[:160]
        raise DataError(
            f"this is no Parquet file that can be read ({cause}).",
            where=name,
            hint="is it complete?",
        ) from None
    return FileContent(
        {column_name: table.column(column_name) for column_name in wanted},
        np.arange(1, table.num_rows + 1),
    )


def _wanted(
    schema: Any, name: str, config: Config, columns: Mapping[str, ColumnOptions]
) -> list[str]:
    """The columns to read: all, or those of `only`, without nested ones that the recipe does not
    use."""
    import pyarrow as pa

    there = list(schema.names)
    twice = [
        column_name for number, column_name in enumerate(there) if column_name in there[:number]
    ]
    if twice:
        raise DataError(f"two columns are called {twice[0]!r}.", where=name, hint="rename one")
    for column_name in config.only or ():
        if column_name not in there:
            near = nearest(column_name, there, 1)
            listing = ", ".join(there[:20])
            raise DataError(
                f"there is no column {column_name}; the file has {listing}.",
                where=name,
                hint=f"did you mean {near[0]}?" if near else "",
            )
    wanted = []
    for column_name in config.only or there:
        kind = schema.field(column_name).type
        lists = (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
        used = column_name not in columns or columns[column_name].use
        if used or not (pa.types.is_nested(kind) or pa.types.is_binary(kind)):
            if pa.types.is_nested(kind) and not lists:
                hint = (
                    f"set data.columns.{column_name}.use to false, or give its parts columns "
                    "of their own"
                )
                raise DataError(
                    f"the column holds {kind}, which is no single value.",
                    where=f"{name}, column {column_name}",
                    hint=hint,
                )
            wanted.append(column_name)
    if not wanted:
        raise DataError("no column is left to read.", where=name, hint="use at least one")
    return wanted


def _room(metadata: Any, width: int, name: str) -> None:
    """DataError for a table that does not fit into memory: a few bytes can encode billions of equal
    rows."""
    declared = sum(
        metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
    )
    needed = max(declared, 8 * metadata.num_rows * width)
    free = machine.memory()[1]
    if needed > free / 2:
        raise DataError(
            f"its {metadata.num_rows:,} rows need about {needed / 2**30:,.1f} GiB, and this "
            f"machine has {free / 2**30:,.1f} GiB of memory free.",
            where=name,
            hint="name fewer columns as data.source.only, or take a machine with more memory",
        )
