"""Rows of named values, collected as columns block by block; strings are kept on disk.

Memory therefore does not limit a corpus of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import DataError
from danlu.reading.growing_array import GrowingArray
from danlu.reading.inference import infer_column
from danlu.recipe import ColumnOptions
from danlu.terms import Column

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLED, _SAMPLED_BYTES = (
    20_000,
    4 << 20,
)  # rows, and bytes, of a column of strings by which its kind is told


class LongRows:
    """Collects columns. A column that holds only strings is spooled to disk; other values stay in
    memory.

    `unused` names columns that the recipe does not use: such a column is dropped if it holds a
    nested value.
    """

    def __init__(self, unused: frozenset[str] = frozenset()) -> None:
        self.unused = unused
        self.columns: dict[str, _Strings | list[Any]] = {}
        self.left_out: set[str] = set()
        self.count = 0

    def add(self, rows: Sequence[Mapping[str, Any]], where: Callable[[int], str]) -> None:
        """Add rows; `where(i)` names rows[i] in messages. DataError for an object within a row."""
        named = dict.fromkeys([*self.columns, *(key for row in rows for key in row)])
        for name in named:
            if name not in self.left_out:
                self._add(name, [row.get(name) for row in rows], where)
        self.count += len(rows)

    def _add(self, name: str, values: list[Any], where: Callable[[int], str]) -> None:
        if name in self.unused and any(isinstance(value, dict | list) for value in values):
            self.left_out.add(name)
            self.columns.pop(name, None)
            return
        bad = next((row for row, value in enumerate(values) if isinstance(value, dict)), None)
        if bad is not None:
            raise nested(name, where(bad))
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = _Strings(self.count)
        if isinstance(column, _Strings) and any(
            value is not None and not isinstance(value, str) for value in values
        ):
            column = self.columns[name] = column.array().to_pylist()
        if isinstance(column, _Strings):
            column.add(values, lambda row: f"{where(row)}, column {name}")
        else:
            column += values

    def finish(self) -> dict[str, pa.Array | list[Any]]:
        """The values by column: arrays of large_string (a blank value is empty), or lists."""
        return {
            name: values.array() if isinstance(values, _Strings) else values
            for name, values in self.columns.items()
        }


def nested(name: str, where: str) -> DataError:
    """The error for an object where a single value is needed."""
    return DataError(
        "an object within the object is no single value.",
        where=f"{where}, column {name}",
        hint=f"set data.columns.{name}.use to false, or give its parts keys of their own",
    )


class _Strings:
    """Collects a column of strings, of which the first `absent` are missing."""

    def __init__(self, absent: int) -> None:
        self.values, self.sizes, self.there = (
            GrowingArray(np.uint8),
            GrowingArray(np.int64),
            GrowingArray(np.bool_),
        )
        self.sizes.append(np.zeros(absent))
        self.there.append(np.zeros(absent))

    def add(self, values: list[Any], where: Callable[[int], str]) -> None:
        try:
            written = [
                value.encode() if value is not None and not value.isspace() else b""
                for value in values
            ]
        except UnicodeEncodeError:
            bad = next(
                row
                for row, value in enumerate(values)
                if value is not None and any("\ud800" <= char <= "\udfff" for char in value)
            )
            raise DataError(
                "the text holds half of a surrogate pair, which is no character.",
                where=where(bad),
                hint="mend the row",
            ) from None
        self.values.append(np.frombuffer(b"".join(written), dtype=np.uint8))
        self.sizes.append(np.fromiter(map(len, written), dtype=np.int64, count=len(written)))
        self.there.append(
            np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))
        )

    def array(self) -> pa.Array:
        """All strings; the spools are empty afterwards."""
        import pyarrow as pa

        sizes, there, values = self.sizes.finish(), self.there.finish(), self.values.finish()
        offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        lost = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
        return pa.LargeStringArray.from_buffers(
            len(sizes), pa.py_buffer(offsets), pa.py_buffer(values), lost
        )


def column_of(
    name: str,
    values: Any,
    options: ColumnOptions | None,
    where: Callable[[int], str],
    notices: list[str],
) -> Column:
    """The typed column of values from LongRows (of several files, concatenated).

    Strings stay on disk where the first rows show that they are text.
    """
    import pyarrow as pa

    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    kind = options.kind if options is not None else None
    if (
        kind in (None, "text")
        and all(isinstance(chunk, pa.LargeStringArray) for chunk in chunks)
        and any(map(len, chunks))
    ):
        first = next(chunk for chunk in chunks if len(chunk))
        heads = np.searchsorted(_offsets(first), _offsets(first)[0] + _SAMPLED_BYTES, side="right")
        sample = first.slice(0, max(min(int(heads) - 1, _SAMPLED), 1))
        column = infer_column(name, sample, options, where, typed=True)
        if column.kind == "text":
            return _text(column, chunks, len(sample) < len(values) and kind is None)
    return infer_column(name, values, options, where, typed=True, notices=notices)


def _text(column: Column, chunks: Sequence[pa.Array], by_sample: bool) -> Column:
    """The text column of arrays of large_string; a single array is not copied."""
    reason = f"{column.reason} (of the first rows)" if by_sample else column.reason
    parts = [
        (_offsets(chunk), np.frombuffer(chunk.buffers()[2] or b"", dtype=np.uint8))
        for chunk in chunks
    ]
    if len(parts) == 1:
        offsets, values = parts[0]
    else:
        spool, ends = GrowingArray(np.uint8), [np.zeros(1, dtype=np.int64)]
        for offsets, values in parts:
            for start in range(int(offsets[0]), int(offsets[-1]), 1 << 22):
                spool.append(values[start : min(start + (1 << 22), int(offsets[-1]))])
            ends.append(ends[-1][-1] + offsets[1:] - offsets[0])
        offsets, values = np.concatenate(ends), spool.finish()
    lost = np.diff(offsets) == 0
    return replace(
        column, values=values, offsets=offsets, missing=lost if lost.any() else None, reason=reason
    )


def _offsets(array: pa.Array) -> np.ndarray:
    return np.frombuffer(array.buffers()[1], dtype=np.int64)[
        array.offset : array.offset + len(array) + 1
    ]
