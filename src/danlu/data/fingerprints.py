"""Which rows are equal: a 64-bit fingerprint of each row, confirmed by an exact comparison.

Equal rows have equal fingerprints. Two unequal rows share one with a probability near 2**-40, so
`rows_equal` confirms what fingerprints suggest. A missing value equals a missing value; -0.0 equals
0.0. Arrays are processed a few megabytes at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from danlu.terms import RAGGED, Column, Table

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 22  # bytes processed at a time
_HELD = 64 << 20  # bytes of a ragged column (texts, ...) up to which rows are compared in memory


def mix(values: np.ndarray) -> np.ndarray:
    """A bijective hash of each uint64, as a new array: the finaliser of SplitMix64.

    Source: Steele, Lea and Flood, 2014, doi:10.1145/2660193.2660195.

    >>> hex(mix(np.array([0], dtype=np.uint64))[0])
    '0xe220a8397b1dcdaf'
    """
    mixed = values + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def value_codes(column: Column) -> np.ndarray:
    """A code for each row, int64 (N,): equal values have equal codes; -1 for a missing value.

    TypeError for images and wide number columns.

    >>> value_codes(Column("x", "number", np.array([2.5, 1.0, np.nan, 2.5]))).tolist()
    [1, 0, -1, 1]
    """
    if column.kind in ("category", "boolean"):
        return column.values.astype(np.int64)
    lost = column.is_missing()
    if column.kind in RAGGED:
        result = _codes_of_bytes(column)
    elif column.values.ndim == 1:
        result = np.unique(column.values, return_inverse=True)[1].astype(np.int64)
    else:
        raise TypeError(f"column {column.name} holds {column.kind} of shape {column.values.shape}")
    result[lost] = -1
    return result


def column_fingerprints(column: Column) -> np.ndarray:
    """The fingerprint of each row of a column of any kind, uint64 (N,).

    >>> prints = column_fingerprints(Column("x", "number", np.array([1.0, 2.0, 1.0])))
    >>> bool(prints[0] == prints[2]), bool(prints[0] == prints[1])
    (True, False)
    """
    if column.kind in ("category", "boolean") or column.kind in RAGGED:
        return mix(value_codes(column).view(np.uint64))
    if column.kind == "datetime":
        return mix(np.ascontiguousarray(column.values, dtype=np.int64).view(np.uint64))
    rows = len(column)
    flat = column.values.reshape(rows, -1)
    result = np.empty(rows, dtype=np.uint64)
    step = max(1, _BLOCK // max(1, flat.shape[1] * max(flat.itemsize, 4)))
    for start in range(0, rows, step):
        result[start : start + step] = _of_words(_words(flat[start : start + step]))
    return result


def row_fingerprints(table: Table, names: Sequence[str]) -> np.ndarray:
    """The fingerprint of each row of a table over the columns `names`, uint64 (N,)."""
    result = np.zeros(len(table), dtype=np.uint64)
    for name in names:
        result = mix(result ^ column_fingerprints(table.columns[name]))
    return result


def rows_equal(
    table: Table, names: Sequence[str], left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Whether the rows `left` and `right` (int64 (M,) each) have exactly the same values in the
    columns `names`, bool (M,).

    >>> table = Table({"x": Column("x", "number", np.array([1.0, 2.0, 1.0]))}, "t.csv")
    >>> rows_equal(table, ["x"], np.array([0, 0]), np.array([1, 2])).tolist()
    [False, True]
    """
    result = np.ones(len(left), dtype=bool)
    for name in names:
        column = table.columns[name]
        if column.kind in RAGGED:
            result &= _same_ragged(column, left, right)
            continue
        values = column.values
        width = max(1, int(np.prod(values.shape[1:], dtype=np.int64)))
        step = max(1, _BLOCK // width)
        for start in range(0, len(left), step):
            one, other = values[left[start : start + step]], values[right[start : start + step]]
            equal = one == other
            if column.kind == "number":
                equal |= np.isnan(one) & np.isnan(other)
            result[start : start + step] &= equal.reshape(len(one), -1).all(axis=1)
    return result


def first_equal_row(
    table: Table, names: Sequence[str], rows: np.ndarray, among: np.ndarray
) -> np.ndarray:
    """For each of `rows` the first of the rows `among` with the same values in the columns `names`,
    or -1; int64. A row is never matched with itself.

    >>> table = Table({"x": Column("x", "number", np.array([1.0, 2.0, 1.0]))}, "t.csv")
    >>> first_equal_row(table, ["x"], np.array([1, 2]), np.array([0, 1])).tolist()
    [-1, 0]
    """
    marks = row_fingerprints(table, names)
    order = among[np.argsort(marks[among], kind="stable")]
    positions = np.searchsorted(marks[order], marks[rows], side="left")
    positions[positions == len(order)] = 0
    match = order[positions] if len(order) else np.full(len(rows), -1, dtype=np.int64)
    likely = (
        np.flatnonzero((marks[match] == marks[rows]) & (match != rows) & (match >= 0))
        if len(order)
        else np.zeros(0, dtype=np.int64)
    )
    result = np.full(len(rows), -1, dtype=np.int64)
    sure = likely[rows_equal(table, names, rows[likely], match[likely])]
    result[sure] = match[sure]
    return result


def repeats_earlier_row(table: Table, names: Sequence[str]) -> np.ndarray:
    """Which rows have the same values as an earlier row in the columns `names`, bool (N,); False
    for the first of equal rows.

    >>> table = Table({"x": Column("x", "number", np.array([1.0, 2.0, 1.0]))}, "t.csv")
    >>> repeats_earlier_row(table, ["x"]).tolist()
    [False, False, True]
    """
    rows = np.arange(len(table), dtype=np.int64)
    return first_equal_row(table, names, rows, rows) >= 0


def _words(block: np.ndarray) -> np.ndarray:
    """Rows as uint64 words: numbers one word each (with one zero and one NaN), bytes eight to a
    word."""
    if block.dtype.kind == "f":
        plain = block.astype(np.float64) + 0.0  # -0.0 + 0.0 is 0.0
        plain[np.isnan(plain)] = np.nan
        return plain.view(np.uint64)
    block = np.ascontiguousarray(block)
    rest = -block.shape[1] % 8
    if rest:
        block = np.concatenate([block, np.zeros((len(block), rest), dtype=np.uint8)], axis=1)
    return block.view(np.uint64)


def _of_words(words: np.ndarray) -> np.ndarray:
    """The fingerprint of each row of uint64 words: a sum of words, each spread and times an odd
    number of its own."""
    spread = words * _GOLDEN
    spread ^= spread >> np.uint64(
        32
    )  # else words that differ in high bits alone would stay alike in the low ones
    spread *= mix(np.arange(words.shape[1], dtype=np.uint64)) | np.uint64(1)
    return mix(spread.sum(axis=1, dtype=np.uint64))


def _codes_of_bytes(column: Column) -> np.ndarray:
    """Equal codes for rows of a text, sequence, recording or frames that hold the same bytes.

    Of a large column digests of 128 bits are compared, so that its bytes need not be in memory."""
    pa: Any = import_module("pyarrow")  # it has no types that a checker could read
    assert column.offsets is not None
    flat = np.ascontiguousarray(column.values)
    if flat.nbytes > _HELD:
        return np.unique(_digests(flat, column.offsets), return_inverse=True)[1].astype(np.int64)
    width = flat.itemsize * int(np.prod(flat.shape[1:], dtype=np.int64))  # bytes of one position
    offsets = pa.py_buffer(np.ascontiguousarray(column.offsets, dtype=np.int64) * width)
    array = pa.Array.from_buffers(
        pa.large_binary(),
        len(column),
        [None, offsets, pa.py_buffer(flat.reshape(-1).view(np.uint8))],
    )
    return array.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _digests(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A digest of the bytes of each row, 16 bytes (N,)."""
    digests = bytearray()
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        digests += hashlib.blake2b(flat[start:stop].data, digest_size=16).digest()
    return np.frombuffer(bytes(digests), dtype=[("high", "<u8"), ("low", "<u8")])


def _same_ragged(column: Column, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    assert column.offsets is not None
    sizes = np.diff(np.asarray(column.offsets))
    cuts = np.flatnonzero(np.diff((np.cumsum(sizes[left] + sizes[right])) // _HELD)) + 1
    equal = [
        _alike(column.take(np.concatenate([one, other])), len(one))
        for one, other in zip(np.split(left, cuts), np.split(right, cuts), strict=True)
    ]
    return np.concatenate(equal)


def _alike(pair: Column, count: int) -> np.ndarray:
    """Whether row i is row count + i, bool (count,)."""
    values = value_codes(pair)
    return values[:count] == values[count:]
