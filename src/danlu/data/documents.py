"""Running text: which column holds it, and its documents in pieces that splits can fall between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from danlu.errors import DataError
from danlu.reading.growing_array import GrowingArray
from danlu.recipe import Data, Part
from danlu.terms import Table

PIECE = 2048  # bytes of a piece, about
LEAST, PIECES = 64, 100  # a small corpus is cut into about 100 pieces of at least 64 bytes
_GOALS = 512  # cuts that are searched for at a time; each reads a window of up to 1,024 bytes
_TOGETHER = 1 << 22  # bytes that are joined at a time
_NEWLINE, _SPACE = 10, 32


def text_column(table: Table, chosen: str | None) -> str:
    """The name of the column that holds the text: `chosen`, else the only text column, else the one
    called "text".

    DataError naming the columns where there is no such column, or several others.

    >>> from danlu.terms import Column
    >>> story = Column("story", "text", np.zeros(0, np.uint8), offsets=np.zeros(1, np.int64))
    >>> text_column(Table({"story": story}, "t.csv"), None)
    'story'
    """
    names = [name for name, other in table.columns.items() if other.kind == "text"]
    if chosen is not None:
        column = table.columns.get(chosen)
        if column is None:
            raise DataError(
                f"task.column names {chosen}, and there is no such column.",
                where=table.origin,
                hint=f"it has {', '.join(table.columns)}",
            )
        if column.kind != "text":
            hint = f"set data.columns.{chosen}.kind to text"
            raise DataError(
                f"the column {chosen} holds {column.kind}, no text.", where=table.origin, hint=hint
            )
        return chosen
    if len(names) == 1:
        return names[0]
    if "text" in names:
        return "text"
    if not names:
        kinds = ", ".join(f"{name} ({other.kind})" for name, other in table.columns.items())
        raise DataError(
            f"no column holds text: {kinds}.",
            where=table.origin,
            hint="set data.columns.NAME.kind to text",
        )
    raise DataError(
        f"{len(names)} columns hold text ({', '.join(names)}), and a language model reads one.",
        where=table.origin,
        hint=f"say which: task.column: {names[0]}",
    )


def change_tokenize(data: Data, change: Callable[[Part], Part]) -> Data:
    """The data section with `change` applied to every transform tokenize in it."""

    def changed(parts: Sequence[Part]) -> list[Part]:
        return [change(part) if part.name == "tokenize" else part for part in parts]

    columns = {
        name: options.model_copy(update={"transforms": changed(options.transforms)})
        if options.transforms
        else options
        for name, options in data.columns.items()
    }
    transforms = {kind: changed(parts) for kind, parts in data.transforms.items()}
    return data.model_copy(update={"columns": columns, "transforms": transforms})


def without_cutting(data: Data) -> Data:
    """The data section whose tokenize transforms neither cut texts nor add begin and end tokens: a
    task over running text does that itself."""
    plain = {"max_length": None, "beginning": False, "end": False}
    return change_tokenize(
        data, lambda part: Part(part.name, part.options.model_copy(update=plain))
    )


def document_pieces(table: Table, name: str) -> Table:
    """A table of the text column `name` alone, whose rows are pieces of documents of about PIECE
    bytes; its `continues` says where the next row is of the same document.

    Rows that are lines of one file (Table.joined_by) are joined to one document; any other row is a
    document of its own. A document is cut at the end of a line, else at a space, else between two
    characters. Where rows are documents the bytes are not copied."""
    column = table.columns[name]
    assert column.offsets is not None
    offsets = np.asarray(column.offsets, dtype=np.int64)
    values = column.values[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    documents = _documents(table)
    if table.joined_by:
        values, offsets = _joined(values, offsets, documents, table.joined_by.encode())
    starts = offsets[documents]
    bounds, owner = _bounds(
        values, starts, len(values), max(LEAST, min(PIECE, len(values) // PIECES))
    )
    first = documents[owner]
    if table.joined_by:  # the line that a piece begins with
        first = np.maximum(first, np.searchsorted(offsets[:-1], bounds[:-1], side="right") - 1)
    numbers = table.row_numbers if table.row_numbers is not None else np.arange(1, len(table) + 1)
    follows = np.append(owner[1:] == owner[:-1], False)
    others = [other for other in table.columns if other != name]
    left = (f"only the column {name} is read; {', '.join(others)} is left out.",) if others else ()
    lost = None if column.missing is None else np.asarray(column.missing)[first]
    return Table(
        columns={name: replace(column, values=values, offsets=bounds, missing=lost)},
        origin=table.origin,
        row_names=None if table.row_names is None else _named(table.row_names, first),
        row_numbers=np.asarray(numbers)[first],
        files=table.files,
        file_numbers=None if table.file_numbers is None else np.asarray(table.file_numbers)[first],
        notices=(*table.notices, *left),
        split=None if table.split is None else np.asarray(table.split)[first],
        continues=follows,
    )


def _named(names: Sequence[str], rows: np.ndarray) -> list[str]:
    return [names[int(row)] for row in rows]


def _documents(table: Table) -> np.ndarray:
    """The first row of each document, int64."""
    count = len(table)
    if table.joined_by:
        if table.file_numbers is None:
            return np.zeros(1, dtype=np.int64)
        files = np.asarray(table.file_numbers)
        return np.flatnonzero(np.diff(files, prepend=files[:1] - 1))
    if table.continues is None:
        return np.arange(count)
    return np.flatnonzero(~np.concatenate([[False], np.asarray(table.continues)[:-1]]))


def _joined(
    values: np.ndarray, offsets: np.ndarray, documents: np.ndarray, between: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, offsets) of the rows, with `between` appended to each row that is not the last of its
    document."""
    count = len(offsets) - 1
    sizes = np.diff(offsets)
    followed = np.ones(count, dtype=bool)
    followed[documents[1:] - 1] = False
    followed[-1:] = False
    longer = sizes + followed * len(between)
    after = np.concatenate([[0], np.cumsum(longer)])
    result = GrowingArray(np.uint8)
    start = 0
    while start < count:  # a block of rows at a time, to keep little in memory beside the result
        stop = min(
            max(
                int(np.searchsorted(offsets, int(offsets[start]) + _TOGETHER, side="right")) - 1,
                start + 1,
            ),
            count,
        )
        part = np.empty(int(after[stop] - after[start]), dtype=np.uint8)
        written = np.ones(len(part), dtype=bool)
        ends = (after[start + 1 : stop + 1] - after[start])[followed[start:stop]]
        for offset in range(len(between)):
            written[ends - len(between) + offset] = False
            part[ends - len(between) + offset] = between[offset]
        part[written] = values[offsets[start] : offsets[stop]]
        result.append(part)
        start = stop
    return result.finish(), after


def _bounds(
    values: np.ndarray, starts: np.ndarray, end: int, piece: int
) -> tuple[np.ndarray, np.ndarray]:
    """(where pieces of about `piece` bytes begin, and `end`, int64 (P + 1,); the document of each
    piece, int64 (P,)). Documents begin at `starts`.
    """
    sizes = np.diff(np.append(starts, end))
    cuts = np.maximum(
        (sizes + piece // 2) // piece - 1, 0
    )  # so that the last piece is not a small one
    owner = np.repeat(np.arange(len(starts)), cuts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(cuts) - cuts, cuts) + 1
    goals = starts[owner] + nth * piece
    places = np.concatenate(
        [_cut(values, goals[at : at + _GOALS], piece // 2) for at in range(0, len(goals), _GOALS)]
        or [goals]
    )
    where = np.concatenate([starts, places])
    whose = np.concatenate([np.arange(len(starts)), owner])
    order = np.lexsort((whose, where))  # empty documents keep their place
    return np.append(where[order], end), whose[order]


def _cut(values: np.ndarray, goals: np.ndarray, window: int) -> np.ndarray:
    """For each goal the best position to cut within the `window` bytes up to it."""
    where = goals[:, None] - np.arange(window)[::-1]
    here, before = values[where], values[where - 1]
    rank = ((here & 0xC0) != 0x80).astype(np.int64)  # 1: between two characters of UTF-8
    rank[here == _SPACE] = 2
    rank[(before == _NEWLINE) & (here != _NEWLINE)] = 3
    best = (rank * window + np.arange(window)).argmax(axis=1)
    return where[np.arange(len(goals)), best]
