"""pyarrow's compute functions, and masks of rows.

The functions are made when pyarrow is imported, so that type checkers cannot see them; here they
are had as Any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def compute() -> Any:
    """The module pyarrow.compute."""
    import pyarrow.compute

    return pyarrow.compute


def to_mask(array: pa.Array) -> np.ndarray:
    """A boolean pyarrow array as numpy, bool (N,); null is false."""
    return np.asarray(compute().fill_null(array, False).to_numpy(zero_copy_only=False))


def valid_mask(array: pa.Array) -> np.ndarray:
    """Which rows are not null, bool (N,)."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))


def first_true(rows: np.ndarray) -> int:
    """The first row where a mask holds, or -1."""
    return int(rows.argmax()) if rows.any() else -1


def text_buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 values, int64 offsets (N + 1,)) of an array of large_string without nulls, as a text
    Column holds them."""
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
