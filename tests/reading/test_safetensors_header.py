"""The header of a safetensors file is checked against the file before any tensor is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.errors import DataError
from danlu.reading.safetensors_header import read_header

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(folder: Path, header: Any, data: bytes = bytes(8), length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", size) + text + data)


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"b": np.zeros((2, 3), np.float16), "a": np.ones(5, np.int64), "c": np.zeros(())}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    tensors = read_header(tmp_path, "x.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "a": (5,),
        "b": (2, 3),
        "c": (),
    }
    assert tensors["b"].dtype == "F16"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": {**ONE, "data_offsets": [0, 1 << 40]}}, "takes 1,099,511,627,776 bytes, not 8"),
        ({"w": {**ONE, "data_offsets": [8, 0]}}, "takes -8 bytes"),
        ({"w": {**ONE, "shape": [2**33, 2**33]}}, "takes 8 bytes"),
        ({"w": {**ONE, "shape": [-2]}}, "has no shape"),
        ({"w": {**ONE, "shape": [2.0]}}, "has no shape"),
        ({"w": {**ONE, "shape": [True, 2]}}, "has no shape"),
        ({"w": {**ONE, "dtype": "O"}}, "unknown type 'O'"),
        ({"w": {**ONE, "dtype": ["F32"]}}, "unhashable"),
        ({"w": ONE, "v": ONE}, "overlaps another"),
        ({"w": {**ONE, "shape": [1], "data_offsets": [4, 8]}}, "does not follow"),
        ({"w": {**ONE, "shape": [1], "data_offsets": [0, 4]}}, "take 4 bytes, and 8 follow"),
        ({"w": 5}, "has no description"),
        ({"w": {}}, "dtype"),
        (b"[]", "is no mapping"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"w":1,"w":1}', "occurs twice"),
        (b"{", "Expecting"),
    ],
)
def test_a_header_that_is_not_that_of_its_file_is_refused(header, message, tmp_path) -> None:
    write(tmp_path, header)
    with pytest.raises(DataError, match=rf"x\.safetensors: this is no safetensors file.*{message}"):
        read_header(tmp_path, "x.safetensors")


@pytest.mark.parametrize("length", [2**63 - 1, 1 << 30, 100])
def test_a_header_longer_than_the_file_is_refused(length, tmp_path) -> None:
    write(tmp_path, {"w": ONE}, length=length)
    with pytest.raises(DataError, match=f"says that its header has {length:,}"):
        read_header(tmp_path, "x.safetensors")


def test_a_file_without_a_header_is_refused(tmp_path) -> None:
    for data in (b"", b"1234567"):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(DataError, match="no safetensors file"):
            read_header(tmp_path, "x.safetensors")
