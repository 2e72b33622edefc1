"""A folder of images with one sub-folder a class, and perhaps a level train, validation (val), test above it.

    flowers/daisy/1.jpg            or   flowers/train/daisy/1.jpg, flowers/val/daisy/9.jpg, flowers/test/rose/3.jpg

Columns: "image" (uint8, height, width, channels) and "label" (category: the sub-folder). Images
that stand in the folder itself, as those to be predicted do, have no label. Rows are sorted by
path; what a message calls them is their path below the folder. Images in folders train, validation,
val or test are that split. Every image must have one size, or `size` resizes all of them. Formats
and what is refused: see danlu/parts/tasks/_numpy_generation.py."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from danlu.data.cache import cache_folder
from danlu.reading import class_folders
from danlu.reading.image_files import SUFFIXES as FORMATS
from danlu.reading.image_files import decode_images
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = FORMATS  # a single image, to predict it
IN_MEMORY = 2**30  # bytes of pixels held in memory while they are decoded


class Config(Options):
    """Which folder, and the size its images get."""

    path: str = Field(description="The folder of the images (or one image, to predict it).")
    size: int | list[int] | None = Field(
        default=None,
        description="Height and width in pixels, one number for both; null: the images' own, which must be equal.",
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
    """Whether most files of a folder, itself or up to two levels down, are images (a thousand a
    level are looked at)."""
    return class_folders.holds_mostly(folder, FORMATS)


def files(config: Config) -> list[Path]:
    """The image files, sorted by their path below the folder."""
    return class_folders.files_below(config.path, FORMATS, "image")


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of images and labels; see danlu.sources."""
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
    """Room for pixels: memory, or above IN_MEMORY bytes a file without a name, which is gone when
    nothing uses it any more."""
    if math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        folder = cache_folder()
    except OSError:
        folder = None
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))
