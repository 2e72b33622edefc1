"""Lists of lists of numbers to a frames column: each row is any number of moments of F numbers."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.reading.arrow import RawValues, compute, first_true
from danlu.terms import Column

if TYPE_CHECKING:
    import pyarrow as pa

Refuse = Callable[[int, str, str], Exception]
_HINT = "give each row a list of moments, and each moment a list of equally many numbers"


def holds_frames(values: RawValues) -> bool:
    """Whether raw values (a list, numpy or pyarrow array) are lists of lists, or matrices. The
    first value that is not missing decides.

    >>> holds_frames([None, [[1.0, 2.0], [3.0, 4.0]]]), holds_frames([[1.0, 2.0]])
    (True, False)
    """
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        array: Any = values  # pyarrow has no types that a checker could read
        inner = _inside(array.type)
        return inner is not None and _inside(inner) is not None
    if isinstance(values, np.ndarray) and values.dtype != object:
        return False
    first_value = next(
        (
            value
            for value in values
            if value is not None and not (isinstance(value, Sized) and len(value) == 0)
        ),
        None,
    )
    if isinstance(first_value, np.ndarray):
        return first_value.ndim == 2 and first_value.dtype.kind in "iuf"
    return isinstance(first_value, list | tuple) and isinstance(
        first_value[0], list | tuple | np.ndarray
    )


def read_frames(name: str, values: RawValues, refuse: Refuse) -> Column:
    """The frames column of lists of lists of numbers, of matrices, or of lists of numbers (one
    number per moment); None is a missing row.

    `refuse(row, message, hint)` returns the error to raise, for moments of unequal width and for
    values that are not finite numbers.

    >>> rows = [[[1, 2], [3, 4]], [[5, 6]]]
    >>> column = read_frames("x", rows, lambda row, text, hint: ValueError(text))
    >>> column.values.shape, column.offsets.tolist()
    ((3, 2), [0, 2, 3])
    """
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        array: Any = values  # pyarrow has no types that a checker could read
        values = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(values, pa.Array):
        return _from_arrow(name, values, refuse)
    if isinstance(values, np.ndarray) and values.ndim == 3:
        offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
        return _column(
            name, values.reshape(-1, values.shape[2]).astype(np.float32), offsets, None, refuse
        )
    cells = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in values]
    try:
        array = pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        row = next((row for row, cell in enumerate(cells) if not _is_frames(cell)), 0)
        raise refuse(row, "this is not a list of lists of numbers.", _HINT) from None
    return _from_arrow(name, array, refuse)


def _from_arrow(name: str, array: pa.Array, refuse: Refuse) -> Column:
    import pyarrow as pa

    pc = compute()
    inner = _inside(array.type)
    if inner is None:
        raise refuse(0, f"the column holds {array.type}, no lists of numbers.", _HINT)
    lengths = (
        pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    flat = pc.list_flatten(array)
    width = 1
    if _inside(inner) is not None:
        widths = pc.fill_null(pc.list_value_length(flat), -1).to_numpy(zero_copy_only=False)
        width = int(widths[0]) if len(widths) else 1
        uneven = first_true(widths != width)
        if uneven >= 0 or width < 1:
            row = _row_of(offsets, max(uneven, 0))
            length = max(int(widths[max(uneven, 0)]), 0)
            message = f"a moment has {length} numbers, and the column's first has {width}."
            raise refuse(row, message, _HINT)
        flat = pc.list_flatten(flat)
    if not (
        pa.types.is_integer(flat.type)
        or pa.types.is_floating(flat.type)
        or pa.types.is_null(flat.type)
    ):
        raise refuse(0, f"the moments hold {flat.type}, not numbers.", _HINT)
    numbers = np.array(
        flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float32
    )
    return _column(
        name, numbers.reshape(-1, width), offsets, missing if missing.any() else None, refuse
    )


def _column(
    name: str, values: np.ndarray, offsets: np.ndarray, lost: np.ndarray | None, refuse: Refuse
) -> Column:
    wrong = first_true(np.asarray(~np.isfinite(values).all(axis=1)))
    if wrong >= 0:
        moment = wrong - int(offsets[_row_of(offsets, wrong)]) + 1
        raise refuse(
            _row_of(offsets, wrong),
            f"moment {moment:,} holds a number that is missing or not finite.",
            "mend the row",
        )
    names = tuple(f"{name}_{number}" for number in range(values.shape[1]))
    reason = f"frames: lists of moments of {values.shape[1]} numbers"
    return Column(name, "frames", values, offsets=offsets, missing=lost, names=names, reason=reason)


def _row_of(offsets: np.ndarray, position: int) -> int:
    return int(np.searchsorted(offsets, position, side="right")) - 1


def _inside(kind: pa.DataType) -> pa.DataType | None:
    """The type of the entries of a list type; None for other types."""
    import pyarrow as pa

    lists = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return kind.value_type if lists else None


def _is_frames(value: object) -> bool:
    if value is None:
        return True
    moments = value if isinstance(value, list | tuple) else [value]
    numbers = [
        number
        for moment in moments
        for number in (moment if isinstance(moment, list | tuple) else [moment])
    ]
    return isinstance(value, list | tuple) and all(
        isinstance(number, int | float) for number in numbers
    )
