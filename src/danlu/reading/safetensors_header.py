"""The header of a safetensors file: which tensors it holds, and where; checked before any is read.

    8 bytes            the length of the header, little-endian
    the header         JSON: {name: {"dtype", "shape", "data_offsets": [start, stop]}}
    the tensors        one after another, without gaps

Source: the format's page, huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from danlu.errors import DataError
from danlu.reading.foreign_folder import open_inside

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
FLOATS = ("F16", "BF16", "F32", "F64")
LARGEST_HEADER = 8 << 20  # bytes
MOST_TENSORS = 20_000  # a Llama of 126 layers has 1,100
_MOST_AXES = 8
_HINT = "download the file again, or save the model again: model.save_pretrained(FOLDER)"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file.

    dtype   as the format spells it ("F32", "BF16", ...)
    shape   its sizes, none negative
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(folder: Path, name: str) -> dict[str, StoredTensor]:
    """The tensors of the file `name` in a folder, by name. Raises DataError where the file is not
    regular, leads out of the folder, or is not what its header says."""
    path = folder / name
    with open_inside(folder, name) as file:
        try:
            return _tensors(file, os.fstat(file.fileno()).st_size)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            cause = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise DataError(
                f"this is no safetensors file that can be read: {cause}.",
                where=str(path),
                hint=_HINT,
            ) from None


def _tensors(file: BinaryIO, size: int) -> dict[str, StoredTensor]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8 or length > LARGEST_HEADER:
        raise ValueError(f"it has {size:,} bytes, and says that its header has {length:,}")
    header = json.loads(file.read(length), object_pairs_hook=_without_repetition)
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    header.pop("__metadata__", None)
    if len(header) > MOST_TENSORS:
        raise ValueError(f"it has {len(header):,} tensors, and at most {MOST_TENSORS:,} are read")
    parts = [_part(name, entry) for name, entry in header.items()]
    end = 0
    for start, stop, name in sorted((part[1], part[2], part[0]) for part in parts):
        if start != end:
            what = "overlaps another" if start < end else "does not follow the one before it"
            raise ValueError(f"the tensor {name[:200]} {what}")
        end = stop
    if end != size - 8 - length:
        raise ValueError(
            f"its tensors take {end:,} bytes, and {size - 8 - length:,} follow the header"
        )
    return {name: tensor for name, _, _, tensor in parts}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return values


def _part(name: str, entry: object) -> tuple[str, int, int, StoredTensor]:
    """(name, first byte, byte after the last, tensor) of an entry of the header."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"the tensor {name[:200]} has no description")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in BITS:
        raise ValueError(f"the tensor {name[:200]} is of the unknown type {str(dtype)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"the tensor {name[:200]} has no shape, but {str(shape)[:100]}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the tensor {name[:200]} has no place, but {str(offsets)[:100]}")
    start, stop = offsets
    tensor = StoredTensor(dtype, tuple(shape))
    if stop - start != tensor.numbers * BITS[dtype] // 8:
        raise ValueError(
            f"the tensor {name[:200]} of shape {list(shape)} and type {dtype} takes "
            f"{stop - start:,} bytes, not {tensor.numbers * BITS[dtype] // 8:,}"
        )
    return name, start, stop, tensor


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 62 for value in values
    )


__all__ = ["FLOATS", "StoredTensor", "read_header"]
