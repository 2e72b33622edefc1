"""What tasks read of target columns: distinct values and codes, numbers, joined labels.

A target that cannot be used raises DataError that names the column and the remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from danlu.errors import DataError
from danlu.parts.tasks._base import ClassValue
from danlu.terms import Column


def refuse_missing(column: Column) -> None:
    """Raises DataError where rows have no value of the target."""
    missing = int(np.count_nonzero(column.is_missing()))
    if missing:
        raise DataError(
            f"the target {column.name} is missing in {missing:,} of {len(column):,} rows.",
            hint="data.missing_target: drop leaves such rows out",
        )


def refuse_empty(column: Column) -> None:
    """Raises DataError for a target without rows."""
    if not len(column):
        raise DataError(
            f"the target {column.name} has no rows.",
            hint="look at the split: its training part is empty",
        )


def as_text(column: Column) -> Column:
    """A target as a text column; categories become texts. DataError for other kinds."""
    if column.kind == "text":
        return column
    if column.kind != "category":
        raise DataError(
            f"the target {column.name} holds {column.kind}, and the task writes text.",
            hint=f"set data.columns.{column.name}.kind to text",
        )
    pieces = [piece.encode() for piece in column.categories]
    codes = np.asarray(column.values)
    bounds = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    words = Column("", "text", np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets=bounds)
    texts = (
        words.take(np.maximum(codes, 0))
        if pieces
        else replace(words, offsets=np.zeros(len(codes) + 1, dtype=np.int64))
    )
    return replace(texts, name=column.name, missing=codes < 0)


def distinct_values(column: Column) -> tuple[list[ClassValue], np.ndarray]:
    """(values, codes): the distinct values of a category, boolean or number column and each row's
    index into them, int64 (N,).

    Whole numbers are int. Categories that no row has are listed too; no code points to them."""
    refuse_missing(column)
    if column.kind == "category":
        return list(column.categories), column.values.astype(np.int64)
    if column.kind == "boolean":
        return [False, True], column.values.astype(np.int64)
    if column.kind == "number" and column.values.ndim == 1:
        values, codes = np.unique(column.values, return_inverse=True)
        return [int_if_whole(value) for value in values.tolist()], codes.astype(np.int64)
    raise DataError(
        f"the target {column.name} holds "
        f"{'several numbers per row' if column.kind == 'number' else column.kind}, no classes.",
        hint=f"data.columns.{column.name}.kind: category reads each distinct value as a class"
        if column.kind == "text"
        else "",
    )


def int_if_whole(value: float) -> int | float:
    """3.0 as 3; anything else unchanged.

    >>> int_if_whole(3.0), int_if_whole(2.5)
    (3, 2.5)
    """
    return int(value) if math.isfinite(value) and value == int(value) else value


def class_text(value: object) -> str:
    """A class as a recipe writes it.

    >>> class_text(True), class_text(3), class_text("setosa")
    ('true', '3', 'setosa')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def sort_classes(values: Sequence[ClassValue]) -> list[ClassValue]:
    """Class values sorted: numbers by size, also those written as text, everything else by
    spelling.

    >>> sort_classes(["10", "2"])
    ['2', '10']
    """
    try:
        sizes = {value: float(value) for value in values}
    except ValueError:
        return sorted(values, key=class_text)
    if not all(math.isfinite(size) for size in sizes.values()):  # "nan" and "inf" are class names
        return sorted(values, key=class_text)
    return sorted(values, key=lambda value: (sizes[value], class_text(value)))


def number_matrix(column: Column) -> np.ndarray:
    """A number column as float64 (N, D); DataError for another kind, missing values and
    infinities."""
    if column.kind != "number":
        raise DataError(
            f"the target {column.name} is {column.kind}; regression needs numbers.",
            hint=f"choose task: classification, or set data.columns.{column.name}.kind: number",
        )
    refuse_missing(column)
    values = np.asarray(column.values, dtype=np.float64)
    infinite = int(np.count_nonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1)))
    if infinite:
        raise DataError(
            f"the target {column.name} is infinite in {infinite:,} of {len(column):,} rows.",
            hint="mend those rows",
        )
    return values.reshape(len(values), -1)


def label_sets(column: Column, separator: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(labels, rows, codes) of a column whose cells hold labels joined by `separator`.

    Entry i says that row rows[i] has labels[codes[i]]; every label is in some row. Spaces around a
    label and empty labels are dropped, a label that is twice in a cell counts once. A missing cell
    has no label here: the caller decides whether that is allowed."""
    if column.kind == "category":
        pieces = [[piece.strip() for piece in text.split(separator)] for text in column.categories]
        labels = sorted({piece for row_labels in pieces for piece in row_labels if piece})
        code_of = {label: number for number, label in enumerate(labels)}
        table = np.zeros(
            (len(pieces) + 1, len(labels)), dtype=bool
        )  # the last row is "missing", reached by code -1
        for number, row_labels in enumerate(pieces):
            table[number, [code_of[piece] for piece in row_labels if piece]] = True
        rows, codes = np.nonzero(table[column.values])
        return _drop_unused_labels(labels, rows, codes)
    if column.kind != "text" or column.offsets is None:
        raise DataError(
            f"the target {column.name} is {column.kind}, and not a text of labels joined by "
            f"{separator!r}."
        )
    return _text_label_sets(column, separator)


def _text_label_sets(column: Column, separator: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    import pyarrow as pa
    from pyarrow.compute import (  # its short forms are made at run time, unknown to type checkers
        SplitPatternOptions,
        call_function,
    )

    assert column.offsets is not None
    offsets = np.ascontiguousarray(column.offsets, dtype=np.int64)
    letters = np.ascontiguousarray(column.values)
    text = pa.LargeStringArray.from_buffers(
        len(column), pa.py_buffer(offsets), pa.py_buffer(letters)
    )
    split = call_function("split_pattern", [text], SplitPatternOptions(separator))
    rows = call_function("list_parent_indices", [split]).to_numpy(zero_copy_only=False)
    coded = call_function(
        "utf8_trim_whitespace", [call_function("list_flatten", [split])]
    ).dictionary_encode()
    entries = coded.dictionary.to_pylist()
    labels = sorted(label for label in entries if label)
    code_of = {label: number for number, label in enumerate(labels)}
    codes = np.array([code_of.get(label, -1) for label in entries], dtype=np.int64)[
        coded.indices.to_numpy(zero_copy_only=False)
    ]
    keep = codes >= 0
    if column.missing is not None:
        keep &= ~np.asarray(column.missing, dtype=bool)[rows]
    pairs = np.unique(np.stack([rows[keep].astype(np.int64), codes[keep]]), axis=1)
    return _drop_unused_labels(labels, pairs[0], pairs[1])


def _drop_unused_labels(
    labels: list[str], rows: np.ndarray, codes: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Without the labels that no row has (categories of other rows, or of missing cells)."""
    used, codes = np.unique(codes, return_inverse=True)
    return [labels[number] for number in used], rows, codes


def percent_text(part: float) -> str:
    """A share as a percentage, small shares with one more digit.

    >>> percent_text(0.2408), percent_text(0.0123)
    ('24 %', '1.2 %')
    """
    percent = 100 * part
    return (
        f"{percent:.0f} %"
        if percent >= 10 or percent == 0
        else f"{percent:.1f} %"
        if percent >= 0.1
        else "under 0.1 %"
    )


def comma_list(values: Sequence[object], most: int = 5) -> str:
    """The first values, and how many more there are.

    >>> comma_list(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(class_text(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most:,} more"
