"""A look into an ONNX file without a library: whether it asks for a file outside of itself, or may run without an end.

Only the fields that lead to tensors are followed. Source: onnx.proto (field numbers), Protocol
Buffers encoding (wire types)."""

from __future__ import annotations

from collections.abc import Iterator

from danlu.errors import ArtifactError

# message -> {field: the message it holds}
_LEADS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL, _LOCATION = 13, 14  # of a tensor
_OPERATOR = 4  # of a node
_LOOPS = (b"Loop", b"Scan")
_DEEPEST = 64


def refuse_outside(data: bytes) -> None:
    """Raises ArtifactError where a tensor of an ONNX model lies in another file, where it holds a
    loop, or where the bytes are no such model."""
    try:
        _look(memoryview(data), "model", 0)
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"this is no ONNX file ({error}).") from None


def _look(data: memoryview, message: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    leads = _LEADS.get(message, {})
    for number, value in fields(data):
        if message == "tensor" and (number == _EXTERNAL or (number == _LOCATION and value == 1)):
            raise ArtifactError(
                "a tensor of this ONNX file lies in another file, which is never followed."
            )
        if message == "node" and number == _OPERATOR and value in _LOOPS:
            raise ArtifactError(
                "this ONNX file holds a loop, which may have no end and which no export of danlu has."
            )
        if number in leads and isinstance(value, memoryview):
            _look(value, leads[number], depth + 1)


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field of a message: whole numbers, or bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire == 2:
            size, place = _varint(data, place)
            if size > len(data) - place:
                raise ValueError("it ends too early")
            yield number, data[place : place + size]
            place += size
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError("it holds a field of no known type")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
