"""A folder of images with one sub-folder per class, optionally below train, validation and test.

    flowers/daisy/1.jpg
    flowers/train/daisy/1.jpg, flowers/val/daisy/9.jpg, flowers/test/rose/3.jpg

Columns: "image" (uint8, height, width, channels) and "label" (category: the sub-folder). Images in
the folder itself, such as those to predict, have no label. Rows are sorted by path; messages name
them by their path below the folder. Images in folders train, validation, val or test belong to that
split. All images must have the same size, unless `size` resizes them. For formats and limits see
danlu/reading/image_files.py.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from danlu.data.cache import temporary_folder
from danlu.reading import class_folders
from danlu.reading.image_files import SUFFIXES as FORMATS
from danlu.reading.image_files import decode_images
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = FORMATS  # a single image, to predict it
IN_MEMORY = 2**30  # most bytes of decoded pixels in memory; more go to a temporary file


class Config(Options):
    """The folder, and the size of its images."""

    path: str = Field(description="The folder of the images (or a single image, for prediction).")
    size: int | list[int] | None = Field(
        default=None,
        description="Height and width in pixels, or one number for both; null: the images' own "
        "size.",
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1 grey, 3 RGB; null: RGB if the first image has colour."
    )

    @field_validator("size")
    @classmethod
    def _two_sizes(cls, value: int | list[int] | None) -> int | list[int] | None:
        sizes = [value] if isinstance(value, int) else value or [1]
        if (
            len(sizes) not in ((1,) if isinstance(value, int) else (1, 2))
            or min(sizes) < 1
            or max(sizes) > 8192
        ):
            raise ValueError("must be one size or [height, width], each from 1 to 8192 pixels")
        return value


def claims(folder: Path) -> bool:
    """Whether most files of a folder and of two levels below are images (of the first thousand
    files per level)."""
    return class_folders.holds_mostly(folder, FORMATS)


def files(config: Config) -> list[Path]:
    """The image files, sorted by their path below the folder."""
    return class_folders.files_below(config.path, FORMATS, "image")


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of images and labels."""
    paths = files(config)
    root = Path(config.path)
    inside = class_folders.relative_paths(paths, root)
    names = [path.as_posix() for path in inside]
    size = [config.size, config.size] if isinstance(config.size, int) else config.size
    wanted = (size[0], size[-1]) if size else None
    pixels = decode_images(
        paths, size=wanted, channels=config.channels, name=names.__getitem__, out=_space
    )
    reason = f"image: {len(paths):,} files" + (
        f", resized to {wanted[0]}x{wanted[1]}" if wanted else ""
    )
    columns_read = {"image": Column("image", "image", pixels, reason=reason)}
    above = [path.parent.parts for path in inside]
    split = class_folders.splits_from_folders(above)
    classes = [parts[1:] for parts in above] if split is not None else above
    labels, notices = class_folders.labels_from_folders(classes, names, str(root), "images")
    if labels is not None:
        columns_read["label"] = labels
    return Table(
        columns=columns_read,
        origin=root.name or str(root),
        row_names=names,
        split=split,
        notices=tuple(notices),
    )


def _space(shape: tuple[int, ...]) -> np.ndarray:
    """An array for pixels: in memory, or above IN_MEMORY bytes in a file without a name, which the
    system deletes once it is no longer used."""
    if math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile(dir=temporary_folder()) as file:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))
