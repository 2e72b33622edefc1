"""Refuses an ONNX file that reads other files or may never end, without the onnx library.

Only the fields that lead to tensors and nodes are followed. Source: onnx.proto (field numbers),
Protocol Buffers encoding (wire types).
"""

from __future__ import annotations

from collections.abc import Iterator

from danlu.errors import ArtifactError

# message -> {number of a field: the message it holds}
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
_MAX_DEPTH = 64


def refuse_unsafe(data: bytes) -> None:
    """Raises ArtifactError where a tensor of an ONNX model is in another file, where the model
    holds a loop, or where the bytes are no ONNX model."""
    try:
        _check_message(memoryview(data), "model", 0)
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"this is no ONNX file ({error}).") from None


def _check_message(data: memoryview, message: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    children = _LEADS.get(message, {})
    for number, value in fields(data):
        if message == "tensor" and (number == _EXTERNAL or (number == _LOCATION and value == 1)):
            raise ArtifactError(
                "a tensor of this ONNX file is in another file, which danlu never reads."
            )
        if message == "node" and number == _OPERATOR and value in _LOOPS:
            raise ArtifactError(
                "this ONNX file holds a loop, which may never end; exports of danlu hold none."
            )
        if number in children and isinstance(value, memoryview):
            _check_message(value, children[number], depth + 1)


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field of a message; the value is an integer, or bytes. Raises
    ValueError or IndexError for bytes that are no message.

    >>> [(number, bytes(value)) for number, value in fields(memoryview(b"\\x0a\\x02hi"))]
    [(1, b'hi')]
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(data, position)
            if size > len(data) - position:
                raise ValueError("it ends too early")
            yield number, data[position : position + size]
            position += size
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError("it holds a field of no known type")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
