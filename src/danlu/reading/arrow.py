"""pyarrow's compute functions, and arrays of pyarrow as numpy arrays.

pyarrow creates its compute functions while it is imported, so type checkers do not know them:
`compute()` returns the module as Any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

# One raw value per row: a list, a numpy array, or an array of pyarrow.
RawValues: TypeAlias = "Iterable[object] | np.ndarray | pa.Array | pa.ChunkedArray"


def compute() -> Any:
    """The module pyarrow.compute (imported at the first call, since that takes time)."""
    import pyarrow.compute

    return pyarrow.compute


def to_mask(array: pa.Array) -> np.ndarray:
    """A boolean pyarrow array as numpy bool (N,); null becomes False.

    >>> import pyarrow as pa
    >>> to_mask(pa.array([True, None, False])).tolist()
    [True, False, False]
    """
    return np.asarray(compute().fill_null(array, False).to_numpy(zero_copy_only=False))


def valid_mask(array: pa.Array) -> np.ndarray:
    """Which rows are not null, bool (N,).

    >>> import pyarrow as pa
    >>> valid_mask(pa.array([1, None])).tolist()
    [True, False]
    """
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))


def first_true(rows: np.ndarray) -> int:
    """The first row where a bool mask (N,) is true, or -1.

    >>> first_true(np.array([False, True, True])), first_true(np.array([False]))
    (1, -1)
    """
    return int(rows.argmax()) if rows.any() else -1


def text_buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 values, int64 offsets (N + 1,)) of a large_string array without nulls: the `values`
    and `offsets` of a text Column.

    >>> import pyarrow as pa
    >>> values, offsets = text_buffers(pa.array(["ab", "c"], pa.large_string()))
    >>> values.tobytes(), offsets.tolist()
    (b'abc', [0, 2, 3])
    """
    buffers = texts.buffers()
    if not len(texts):
        return np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    offsets = np.frombuffer(buffers[1], dtype=np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    values = (
        np.frombuffer(buffers[2], dtype=np.uint8)
        if buffers[2] is not None
        else np.zeros(0, dtype=np.uint8)
    )
    return values[offsets[0] : offsets[-1]].copy(), offsets - offsets[0]
