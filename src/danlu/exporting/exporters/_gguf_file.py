"""A GGUF file read with checks: every count and offset that it declares lies inside the file.

    magic, version, counts | key-value pairs | name, shape, type and offset of each tensor | numbers

Source: the specification of GGUF, version 3 (ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

MAGIC, VERSION = b"GGUF", 3
MOST_PAIRS, MOST_TENSORS, MOST_ENTRIES = 10_000, 100_000, 5_000_000
_PLAIN = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY = 8, 9
BLOCKS = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    8: ("Q8_0", 32, 34),
}  # the types that danlu writes: (name, numbers in a block, its bytes)


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: its shape, outermost axis first, its GGML type (a key of BLOCKS), its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    data: memoryview


def read(data: bytes) -> tuple[dict[str, Any], list[GgufTensor]]:
    """(metadata by key, the tensors) of a file's bytes. Raises ValueError for what no file that
    danlu wrote holds."""
    cursor = _Cursor(data)
    if bytes(cursor.take(4)) != MAGIC or cursor.number("<I") != VERSION:
        raise ValueError(f"it is no GGUF of version {VERSION}")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MOST_TENSORS or pairs > MOST_PAIRS:
        raise ValueError(f"it declares {tensors:,} tensors and {pairs:,} key-value pairs")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        name = cursor.text()
        metadata[name] = cursor.value(cursor.number("<I"))
    descriptions = [_read_description(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16:
        raise ValueError("its alignment is no positive number of bytes")
    start = -(-cursor.at // alignment) * alignment
    return metadata, [_tensor(description, data, start) for description in descriptions]


def _read_description(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dimensions = cursor.text(), cursor.number("<I")
    if not 0 < dimensions <= 4:
        raise ValueError(f"the tensor {name[:60]} has {dimensions} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))
    return name, shape[::-1], cursor.number("<I"), cursor.number("<Q")


def _tensor(
    description: tuple[str, tuple[int, ...], int, int], data: bytes, start: int
) -> GgufTensor:
    name, shape, kind, offset = description
    if kind not in BLOCKS:
        raise ValueError(f"the tensor {name[:60]} is of type {kind}, which danlu does not write")
    _, block, size = BLOCKS[kind]
    count = math.prod(shape)
    if shape[-1] % block or count < 0 or start + offset + count // block * size > len(data):
        raise ValueError(f"the tensor {name[:60]} lies beyond the end of the file")
    return GgufTensor(
        name, shape, kind, memoryview(data)[start + offset : start + offset + count // block * size]
    )


class _Cursor:
    """Reads bytes one after another, never beyond their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.entries = memoryview(data), 0, 0

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise ValueError("it ends before what it declares")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return bytes(self.take(self.number("<Q"))).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _PLAIN:
            return self.number(_PLAIN[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        self.entries += count
        if inner == _ARRAY or self.entries > MOST_ENTRIES:
            raise ValueError("it holds lists that are too long")
        return [self.value(inner) for _ in range(count)]
