"""Folders of files with one sub-folder per class, optionally below train, validation (val), test.

flowers/daisy/1.jpg
flowers/train/daisy/1.jpg, flowers/val/daisy/9.jpg, flowers/test/rose/3.jpg
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from danlu.errors import DataError
from danlu.reading import files as disk
from danlu.terms import Column

_SPLITS = {
    "train": 0,
    "training": 0,
    "validation": 1,
    "val": 1,
    "valid": 1,
    "test": 2,
    "testing": 2,
}
_DEEPEST = 16  # levels of folders; deeper ones are a loop of links or a mistake


def holds_mostly(folder: Path, suffixes: Sequence[str]) -> bool:
    """Whether most files of a folder, and up to two levels below it, end in one of `suffixes`. At
    most a thousand entries per level are looked at."""
    wanted = others = 0
    for pattern in ("*", "*/*", "*/*/*"):
        for path in islice(folder.glob(pattern), 1000):
            if path.suffix.lower() in suffixes:
                wanted += 1
            elif path.is_file() and not path.name.startswith("."):
                others += 1
    return wanted > others


def files_below(path: str, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files below a folder that end in one of `suffixes`, sorted by their path below it; for a
    path to a file, that file alone.

    `what` names such files in messages ("images"). DataError where there is none, or where folders
    are nested more than 16 levels deep."""
    root = Path(path)
    if not os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises where the text holds a NUL
        disk.check_file(root)
        return [root]
    files = sorted(_walk(root, tuple(suffixes), 0), key=lambda path: path.relative_to(root).parts)
    if not files:
        raise DataError(
            f"the folder holds no {what} ({', '.join(suffixes)}).",
            where=str(root),
            hint="name the folder above the classes",
        )
    return files


def _walk(folder: Path, suffixes: tuple[str, ...], depth: int) -> list[Path]:
    if depth > _DEEPEST:
        raise DataError(
            "folders are nested too deep; is there a loop of links?",
            where=str(folder),
            hint="remove the loop",
        )
    files: list[Path] = []
    try:
        entries = [
            entry for entry in os.scandir(folder) if not entry.name.startswith((".", "__MACOSX"))
        ]
    except OSError as error:
        raise disk.unreadable_file_error(folder, error) from None
    for entry in entries:
        if entry.is_dir():
            files += _walk(Path(entry.path), suffixes, depth + 1)
        elif entry.name.lower().endswith(suffixes):
            files.append(Path(entry.path))
    return files


def relative_paths(paths: Sequence[Path], root: Path) -> list[Path]:
    """Each path relative to `root`; the name alone where the path is `root` itself.

    >>> relative_paths([Path("flowers/daisy/1.jpg")], Path("flowers"))[0].as_posix()
    'daisy/1.jpg'
    """
    return [path.relative_to(root) if path != root else Path(path.name) for path in paths]


def splits_from_folders(folders: Sequence[tuple[str, ...]]) -> np.ndarray | None:
    """The split of each file, int8 (N,): 0 train, 1 validation, 2 test. `folders` holds the folder
    names on the way to each file.

    None unless every file lies in a folder named for a split, and there are at least two splits.

    >>> splits_from_folders([("train", "daisy"), ("val", "daisy")]).tolist()
    [0, 1]
    """
    tops = {parts[0].lower() if parts else "" for parts in folders}
    if not tops <= _SPLITS.keys() or len({_SPLITS[top] for top in tops}) < 2:
        return None
    return np.array([_SPLITS[parts[0].lower()] for parts in folders], dtype=np.int8)


def labels_from_folders(
    folders: Sequence[tuple[str, ...]], names: Sequence[str], where: str, what: str
) -> tuple[Column | None, list[str]]:
    """(the category column "label", sentences for the reader): each file's class is the folder it
    lies in, given as the folder names on the way to it. (None, []) where no file lies in a folder.

    `names` and `what` ("images") are for messages. DataError where only some files lie in a folder.

    >>> column, _ = labels_from_folders([("rose",), ("daisy",)], ["1", "2"], "flowers", "images")
    >>> column.categories, column.values.tolist()
    (('daisy', 'rose'), [1, 0])
    """
    if not any(folders):
        return None, []
    bare = [name for parts, name in zip(folders, names) if not parts]
    if bare:
        raise DataError(
            f"{len(bare):,} {what} lie in no class folder (the first: {bare[0]}), and the others "
            "do.",
            where=where,
            hint=f"put every one of the {what} into the folder of its class",
        )
    words = ["/".join(parts) for parts in folders]
    classes = sorted(set(words))
    codes = {word: code for code, word in enumerate(classes)}
    numbers = np.fromiter((codes[word] for word in words), dtype=np.int32, count=len(words))
    column = Column(
        "label", "category", numbers, tuple(classes), reason=f"category: {len(classes)} folders"
    )
    deep = [word for word in classes if "/" in word]
    return column, [f"classes are folders within folders, such as {deep[0]}."] if deep else []
