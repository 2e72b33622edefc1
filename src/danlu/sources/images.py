"""A folder of images with one sub-folder a class, and perhaps a level train, validation (val), test above it.

    flowers/daisy/1.jpg            or   flowers/train/daisy/1.jpg, flowers/val/daisy/9.jpg, flowers/test/rose/3.jpg

Columns: "image" (uint8, height, width, channels) and "label" (category: the sub-folder). Images that stand in the folder itself, as those
to be predicted do, have no label. Rows are sorted by path; what a message calls them is their path below the folder. Images in folders
train, validation, val or test are that split. Every image must have one size, or `size` resizes all of them.
Formats and what is refused: see danlu/decoding.py.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from danlu.cache import folder
from danlu.errors import DataError
from danlu.reading import files as disk
from danlu.reading.decoding import SUFFIXES as FORMATS
from danlu.reading.decoding import decode
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

SUFFIXES = FORMATS  # a single image, to predict it
_SPLITS = {"train": 0, "training": 0, "validation": 1, "val": 1, "valid": 1, "test": 2, "testing": 2}
IN_MEMORY = 2**30  # bytes of pixels held in memory while they are decoded
_DEEPEST = 16  # levels of folders; deeper ones are a loop of links or a mistake


class Config(Options):
    """Which folder, and the size its images get."""

    path: str = Field(description="The folder of the images (or one image, to predict it).")
    size: int | list[int] | None = Field(
        default=None, description="Height and width in pixels, one number for both; null: the images' own, which must be equal."
    )
    channels: Literal[1, 3] | None = Field(default=None, description="1 grey, 3 RGB; null: RGB if the first image has colour.")

    @field_validator("size")
    @classmethod
    def _two_sizes(cls, value: int | list[int] | None) -> int | list[int] | None:
        sizes = [value] if isinstance(value, int) else value or [1]
        if len(sizes) not in ((1,) if isinstance(value, int) else (1, 2)) or min(sizes) < 1 or max(sizes) > 8192:
            raise ValueError("must be one size or [height, width], each from 1 to 8192 pixels")
        return value


def claims(folder: Path) -> bool:
    """Whether most files of a folder, itself or up to two levels down, are images (a thousand a level are looked at)."""
    images = others = 0
    for pattern in ("*", "*/*", "*/*/*"):
        for each in islice(folder.glob(pattern), 1000):
            if each.suffix.lower() in FORMATS:
                images += 1
            elif each.is_file() and not each.name.startswith("."):
                others += 1
    return images > others


def files(config: Config) -> list[Path]:
    """The image files, sorted by their path below the folder."""
    root = Path(config.path)
    if not os.path.isdir(config.path):  # noqa: PTH112  Path.is_dir raises where the text holds a NUL
        disk.check(root)
        return [root]
    found = sorted(_walk(root, 0), key=lambda path: path.relative_to(root).parts)
    if not found:
        raise DataError(
            f"the folder holds no image ({', '.join(FORMATS)}).", where=str(root), hint="name the folder above the classes"
        )
    return found


def _walk(folder: Path, depth: int) -> list[Path]:
    if depth > _DEEPEST:
        raise DataError("folders are nested too deep; is there a loop of links?", where=str(folder), hint="remove the loop")
    found: list[Path] = []
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise disk.unreadable(folder, error) from None
    for entry in entries:
        if entry.is_dir():
            found += _walk(Path(entry.path), depth + 1)
        elif entry.name.lower().endswith(FORMATS):
            found.append(Path(entry.path))
    return found


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of images and labels; see danlu.sources."""
    paths = files(config)
    root = Path(config.path)
    inside = [path.relative_to(root) if path != root else Path(path.name) for path in paths]
    names = [path.as_posix() for path in inside]
    size = [config.size, config.size] if isinstance(config.size, int) else config.size
    wanted = (size[0], size[-1]) if size else None
    pixels = decode(paths, size=wanted, channels=config.channels, name=names.__getitem__, out=_space)
    reason = f"image: {len(paths):,} files" + (f", resized to {wanted[0]}x{wanted[1]}" if wanted else "")
    made = {"image": Column("image", "image", pixels, reason=reason)}
    folders = [path.parent.parts for path in inside]
    split = _split(folders)
    below = [parts[1:] for parts in folders] if split is not None else folders
    labels, notices = _labels(below, names, str(root))
    if labels is not None:
        made["label"] = labels
    return Table(columns=made, origin=root.name or str(root), row_names=names, split=split, notices=tuple(notices))


def _space(shape: tuple[int, ...]) -> np.ndarray:
    """Room for pixels: memory, or above IN_MEMORY bytes a file without a name, which is gone when nothing uses it any more."""
    if math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    try:
        folder().mkdir(parents=True, exist_ok=True)
        place = folder()
    except OSError:
        place = None
    with tempfile.TemporaryFile(dir=place) as file:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))


def _split(folders: list[tuple[str, ...]]) -> np.ndarray | None:
    """The split of each image, where every one stands in a folder named for a split, and there are two at least."""
    tops = {parts[0].lower() if parts else "" for parts in folders}
    if not tops <= _SPLITS.keys() or len({_SPLITS[top] for top in tops}) < 2:
        return None
    return np.array([_SPLITS[parts[0].lower()] for parts in folders], dtype=np.int8)


def _labels(folders: list[tuple[str, ...]], names: list[str], where: str) -> tuple[Column | None, list[str]]:
    if not any(folders):
        return None, []
    bare = [name for parts, name in zip(folders, names) if not parts]
    if bare:
        raise DataError(
            f"{len(bare):,} images stand in no class folder (the first: {bare[0]}), and the others do.", where=where,
            hint="put every image into the folder of its class",
        )  # fmt: skip
    words = ["/".join(parts) for parts in folders]
    classes = sorted(set(words))
    codes = {word: code for code, word in enumerate(classes)}
    numbers = np.fromiter((codes[word] for word in words), dtype=np.int32, count=len(words))
    column = Column("label", "category", numbers, tuple(classes), reason=f"category: {len(classes)} folders")
    deep = [word for word in classes if "/" in word]
    return column, [f"classes are folders within folders, such as {deep[0]}."] if deep else []
