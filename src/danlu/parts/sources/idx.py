"""Images in IDX files, plain or gzip: the format of MNIST and Fashion-MNIST.

Columns: "image" (uint8, height, width, 1 or 3) and, where there are label files, "label" (category
"0", "1", ...). A folder with MNIST's file names (train-images-idx3-ubyte, t10k-labels-idx1-ubyte,
...; with or without .gz) gives training and test files; other files are named one by one. Rows of
the test files are the test split.

An IDX file is two zero bytes, the type (0x08: uint8), the number of dimensions, each dimension as a
big-endian int32, and the values (http://yann.lecun.com/exdb/mnist). The size that a header declares
must be exactly that of the data; nothing is allocated before that is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from danlu.errors import DataError
from danlu.reading import files as disk
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

_ENDINGS = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz", ".idx1", ".idx3", ".idx3.gz", ".idx1.gz")
SUFFIXES = _ENDINGS
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_USUAL = {
    "images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "test_images": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte", "test-images-idx3-ubyte"),
    "test_labels": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte", "test-labels-idx1-ubyte"),
}


class Config(Options):
    """A folder with MNIST's file names, or the files one by one."""

    path: str | None = Field(
        default=None,
        description="The folder that holds the files under MNIST's names, or one file of images.",
    )
    images: str | None = Field(
        default=None,
        description="The file of the images (of the training images, if test_images is set).",
    )
    labels: str | None = Field(default=None, description="The file of their labels.")
    test_images: str | None = Field(
        default=None, description="The file of the test images; its rows are the test split."
    )
    test_labels: str | None = Field(default=None, description="The file of the test labels.")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if (self.path is None) == (self.images is None):
            raise ValueError("needs either path (a folder) or images (a file)")
        if self.path is not None and (self.labels or self.test_images or self.test_labels):
            raise ValueError("takes labels and test files together with images, not with path")
        if self.test_labels and not self.test_images:
            raise ValueError("names test_labels without test_images")
        if self.test_images and bool(self.labels) != bool(self.test_labels):
            raise ValueError("needs labels for the training and the test images, or for neither")
        return self


def claims(folder: Path) -> bool:
    """Whether a folder holds files with MNIST's names."""
    return any(
        (folder / f"{name}{ending}").is_file()
        for name in _USUAL["images"]
        for ending in ("", ".gz")
    )


def files(config: Config) -> list[Path]:
    """The files of images and labels, training first."""
    return list(_files(config).values())


def _files(config: Config) -> dict[str, Path]:
    """The file of each role (images, labels, test_images, test_labels)."""
    if config.path is None:
        option = {role: getattr(config, role) for role in _USUAL}
        return {role: Path(name) for role, name in option.items() if name}
    folder = Path(config.path)
    if not folder.is_dir():
        return {"images": folder}
    paths: dict[str, Path] = {}
    for role, names in _USUAL.items():
        there = [
            folder / f"{name}{ending}"
            for name in names
            for ending in ("", ".gz")
            if (folder / f"{name}{ending}").exists()
        ]
        if there:
            paths[role] = there[0]
    if "images" not in paths:
        hint = "name the files as data.source.images and data.source.labels"
        raise DataError(
            f"the folder holds no {_USUAL['images'][0]} (.gz or not).", where=str(folder), hint=hint
        )
    for images, labels in (("images", "labels"), ("test_images", "test_labels")):
        if labels in paths and images not in paths:
            raise DataError(
                f"{paths[labels].name} has no file of images beside it.",
                where=str(folder),
                hint="add it, or name the files",
            )
    if "test_images" in paths and ("labels" in paths) != ("test_labels" in paths):
        raise DataError(
            "there are labels for one of training and test only.",
            where=str(folder),
            hint="add the missing file",
        )
    return paths


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of images and labels."""
    paths = _files(config)
    parts = [("images", "labels"), ("test_images", "test_labels")]
    parts = [pair for pair in parts if pair[0] in paths]
    images = [_images(paths[role]) for role, _ in parts]
    shapes = {array.shape[1:] for array in images}
    if len(shapes) > 1:
        sizes = " and ".join("x".join(map(str, array.shape[1:])) for array in images)
        raise DataError(
            f"training and test images have the shapes {sizes}.",
            where=paths["test_images"].name,
            hint="they must be equal",
        )
    columns_read = {
        "image": Column("image", "image", _stacked(images), reason="image: IDX files hold pixels")
    }
    if "labels" in paths:
        labels = [_labels(paths[role], len(array)) for (_, role), array in zip(parts, images)]
        columns_read["label"] = _category("label", _stacked(labels))
    lengths = [len(array) for array in images]
    names = disk.display_names([paths[role] for role, _ in parts])
    several = len(parts) > 1
    return Table(
        columns=columns_read,
        origin=Path(config.path).name if config.path else names[0],
        row_numbers=np.concatenate([np.arange(1, length + 1) for length in lengths]),
        files=tuple(names),
        file_numbers=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        split=np.repeat(np.array([0, 2], dtype=np.int8)[: len(parts)], lengths)
        if several
        else None,
    )


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(
        arrays
    )  # a copy even of a single array: one over a file's bytes is read-only


def _images(path: Path) -> np.ndarray:
    array = _read(path)
    if array.ndim == 3:
        array = array[..., None]
    if (
        array.ndim != 4
        or array.dtype != np.uint8
        or array.shape[3] not in (1, 3)
        or 0 in array.shape
    ):
        shape = "x".join(map(str, array.shape))
        raise DataError(
            f"it holds {array.dtype} values of the shape {shape}, not uint8 images (count x "
            "height x width).",
            where=path.name,
            hint="name the file of the images as data.source.images",
        )
    return array


def _labels(path: Path, count: int) -> np.ndarray:
    array = _read(path)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        shape = "x".join(map(str, array.shape))
        raise DataError(
            f"it holds {array.dtype} values of the shape {shape}, not one whole number per image.",
            where=path.name,
        )
    if len(array) != count:
        raise DataError(
            f"it holds {len(array):,} labels for {count:,} images.",
            where=path.name,
            hint="the two files do not belong together",
        )
    return array


def _category(name: str, numbers: np.ndarray) -> Column:
    classes, codes = np.unique(numbers, return_inverse=True)
    words = tuple(str(value) for value in classes.tolist())
    return Column(
        name, "category", codes.astype(np.int32), words, reason=f"category: {len(words)} labels"
    )


def _read(path: Path) -> np.ndarray:
    content = disk.read_file(path)
    where, hint = path.name, "is it complete, and an IDX file?"
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or content[3] == 0:
        raise DataError(
            "this is no IDX file (it must begin with 00 00, a type and a number of dimensions).",
            where=where,
            hint=hint,
        )
    count = content[3]
    start = 4 + 4 * count
    if len(content) < start:
        raise DataError(f"the header of {count} dimensions is cut off.", where=where, hint=hint)
    shape = [int(size) for size in np.frombuffer(content, dtype=">u4", count=count, offset=4)]
    dtype = np.dtype(_TYPES[content[2]])
    declared = dtype.itemsize
    for size in shape:  # Python integers, whose product cannot overflow
        declared *= size
    data_size = len(content) - start
    if declared != data_size:
        shape_text = "x".join(map(str, shape))
        raise DataError(
            f"the header declares {shape_text} values ({declared:,} bytes), and {data_size:,} "
            "bytes follow.",
            where=where,
            hint=hint,
        )
    array = np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
