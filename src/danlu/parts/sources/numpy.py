"""Arrays in numpy's files: one array (.npy) or several named arrays (.npz). Never unpickled.

The first dimension counts rows. A one-dimensional array is a column; (N, D) numbers are one column
of D numbers, or D columns if `names` names them; (N, H, W), (N, H, W, 1) and (N, H, W, 3) of uint8
are images; a structured array has one column per field. In an .npz a column has the name of its
array; arrays x_train, x_validation (or x_val) and x_test are one column x with its splits, as in
Keras's mnist.npz. The array of an .npy is called "image", "features" or "value", by its shape.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import Field

from danlu.errors import DataError
from danlu.reading import files as disk
from danlu.reading.columns import infer_column
from danlu.reading.decoded_size import DecodedSize
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = (".npy", ".npz")
_SPLITS = {"_train": 0, "_validation": 1, "_val": 1, "_valid": 1, "_test": 2}
_HINT = "save it again with numpy.save or numpy.savez"


class Config(Options):
    """The file, and names for the columns of a matrix."""

    path: str = Field(description="An .npy or .npz file.")
    names: list[str] | None = Field(
        default=None,
        description="Names of the D columns of an (N, D) array; null: one column of D numbers.",
    )


def files(config: Config) -> list[Path]:
    """The file, as the only entry."""
    return [Path(config.path)]


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of the arrays."""
    path = Path(config.path)
    disk.check_memory(disk.check_file(path).st_size, path)
    arrays = _archive(path) if path.suffix.lower() == ".npz" else _single(path)
    arrays, split = _with_splits(arrays, path.name)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        lengths_text = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise DataError(
            f"the arrays have different numbers of rows: {lengths_text}.",
            where=path.name,
            hint=_HINT,
        )
    columns_read: dict[str, Column] = {}
    notices: list[str] = []
    for name, array in arrays.items():
        for column in _columns(name, array, config, columns, path.name, notices):
            columns_read[column.name] = column
    if not columns_read or not len(next(iter(columns_read.values()))):
        raise DataError(
            "the file holds no row.", where=path.name, hint="check that it is the right file"
        )
    return Table(columns=columns_read, origin=path.name, split=split, notices=tuple(notices))


def _columns(
    name: str,
    array: np.ndarray,
    config: Config,
    options: Mapping[str, ColumnOptions],
    where: str,
    notices: list[str],
) -> list[Column]:
    if array.dtype.names:
        fields = ((field, array[field]) for field in array.dtype.names)
        return [
            column
            for field, values in fields
            for column in _columns(field, values, config, options, where, notices)
        ]
    if (
        array.ndim in (3, 4)
        and array.dtype == np.uint8
        and (array.ndim == 3 or array.shape[3] in (1, 3))
        and 0 not in array.shape[1:]
    ):
        pixels = np.array(array if array.ndim == 4 else array[..., None])
        return [Column(name, "image", pixels, reason=f"image: an array of the shape {array.shape}")]
    if array.ndim > 2:
        hint = "images are uint8 of the shape (N, height, width) or (N, height, width, 1 or 3)"
        shape = "x".join(map(str, array.shape))
        raise DataError(
            f"the array {name} holds {array.dtype} values of the shape {shape}.",
            where=where,
            hint=hint,
        )
    if array.dtype.kind in "OVc":
        raise DataError(
            f"the array {name} holds {array.dtype} values, not numbers or text.",
            where=where,
            hint=_HINT,
        )
    if array.ndim == 2 and config.names is not None:
        if len(config.names) != array.shape[1]:
            message = (
                f"data.source.names names {len(config.names)} columns, and the array "
                f"{name} has {array.shape[1]}."
            )
            raise DataError(message, where=where, hint="name every column")
        pairs = [(column_name, array[:, number]) for number, column_name in enumerate(config.names)]
        return [
            infer_column(
                column_name,
                np.array(values),
                options.get(column_name),
                where,
                typed=True,
                notices=notices,
            )
            for column_name, values in pairs
        ]
    if array.ndim == 2 and array.dtype.kind not in "iufb":
        hint = "name its columns as data.source.names"
        raise DataError(
            f"the array {name} holds {array.dtype} values in {array.shape[1]} columns.",
            where=where,
            hint=hint,
        )
    return [
        infer_column(name, np.array(array), options.get(name), where, typed=True, notices=notices)
    ]


def _with_splits(
    arrays: Mapping[str, np.ndarray], where: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """x_train, x_validation and x_test as one array x, and the split of its rows."""
    groups: dict[str, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        ending = next(
            (ending for ending in _SPLITS if name.endswith(ending) and name != ending), ""
        )
        if not ending:
            return dict(arrays), None
        groups.setdefault(name.removesuffix(ending), {})[_SPLITS[ending]] = array
    codes = sorted({code for group in groups.values() for code in group})
    if len(codes) < 2:
        return dict(arrays), None
    for name, group in groups.items():
        if sorted(group) != codes or len({array.shape[1:] for array in group.values()}) > 1:
            raise DataError(
                f"the arrays of {name} do not belong to the same splits, or differ in shape.",
                where=where,
                hint=_HINT,
            )
    joined = {
        name: np.concatenate([group[code] for code in codes]) for name, group in groups.items()
    }
    first = next(iter(groups.values()))
    return joined, np.repeat(np.array(codes, dtype=np.int8), [len(first[code]) for code in codes])


# --- files


def _single(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise DataError(
                "this is no numpy file.",
                where=path.name,
                hint="is it complete, or in another format?",
            )
    try:
        array = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # memory-mapped: a wrong header allocates nothing
    except Exception as error:  # numpy raises errors of every kind for damaged headers
        raise _damaged(error, path.name) from None
    if not array.ndim:
        raise DataError("the array is a single value.", where=path.name, hint=_HINT)
    name = "image" if array.ndim > 2 else "features" if array.ndim == 2 else "value"
    return {name: array}


def _archive(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    decoded = DecodedSize(
        path.stat().st_size,
        path.name,
        free=disk.FREE_BYTES,
        instead="save it with numpy.savez, without compression",
    )
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    # no more than it declares is read; several members may lie on the same bytes
                    decoded.expect(member.file_size, member.compress_size)
                    decoded.add(member.file_size)
                    with archive.open(member) as file:
                        arrays[member.filename.removesuffix(".npy")] = _member(
                            file, member, path.name
                        )
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy raise errors of every kind for damaged archives
        raise _damaged(error, path.name) from None
    if not arrays:
        raise DataError("the archive holds no array.", where=path.name, hint=_HINT)
    return arrays


def _member(file: IO[bytes], member: zipfile.ZipInfo, where: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    name = member.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise DataError(
            f"the array {name} holds Python objects, which are never unpickled.",
            where=where,
            hint=_HINT,
        )
    if not shape:
        raise DataError(f"the array {name} is a single value.", where=where, hint=_HINT)
    declared = dtype.itemsize
    for size in shape:  # Python integers, whose product cannot overflow
        declared *= size
    if declared > member.file_size:
        message = (
            f"the array {name} declares {declared:,} bytes, and holds at most {member.file_size:,}."
        )
        raise DataError(message, where=where, hint=_HINT)
    values = np.frombuffer(file.read(declared), dtype=dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _damaged(error: Any, where: str) -> DataError:
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
    if "pickle" in cause.lower() or "Python objects" in cause:
        return DataError(
            "it holds Python objects, which are never unpickled.", where=where, hint=_HINT
        )
    return DataError(
        f"this is no numpy file that can be read ({cause}).", where=where, hint="is it complete?"
    )
