"""Files of a folder that somebody else wrote: opened only where they are regular and inside it.

A link that stays inside the folder is followed. So is one of a snapshot in the local cache of the
Hugging Face Hub, whose files are links to blobs of the same checkpoint. Opening waits for nothing:
a pipe, a device or a socket is refused before anything is read."""

from __future__ import annotations

import io
import os
from pathlib import Path

from danlu.errors import DataError
from danlu.reading.files import check_kind, missing_file_error, unreadable_file_error

_SNAPSHOTS, _BLOBS = "snapshots", "blobs"  # of the Hub's local cache
_LONGEST_NAME = 255


def is_plain_name(name: object) -> bool:
    """Whether a value names a file of a folder: a name without a path.

    >>> is_plain_name("model.safetensors"), is_plain_name("../other/model.safetensors")
    (True, False)
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_NAME
        and name not in (".", "..")
        and not any(letter in name for letter in "/\\\0:")
        and name.isprintable()
    )


def inside(folder: Path, name: str, links: bool = False) -> Path:
    """The path of the regular file `name` of a folder, links resolved. Raises DataError where it is
    missing, no regular file, or where a link leads out of the folder; with `links` it may, for a
    file that the user named by its own path."""
    path = folder / name
    try:
        root, target = folder.resolve(strict=True), path.resolve(strict=True)
        if not links and not _is_inside(target, root):
            raise DataError(
                f"it is a link that leads out of the folder, to {target}; such links are not "
                "followed.",
                where=str(path),
                hint="copy the file into the folder",
            )
        check_kind(target.stat(), path)
    except FileNotFoundError:
        raise missing_file_error(path) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable_file_error(path, error) from None
    return target


def _is_inside(target: Path, root: Path) -> bool:
    if target.is_relative_to(root):
        return True
    return root.parent.name == _SNAPSHOTS and target.is_relative_to(root.parent.parent / _BLOBS)


def open_inside(folder: Path, name: str, links: bool = False) -> io.BufferedReader:
    """Open the regular file `name` of a folder for reading; refuses as `inside` does."""
    path = folder / name
    target = inside(folder, name, links)
    try:
        # Windows has neither flag
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(target, os.O_RDONLY | flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise unreadable_file_error(path, error) from None
    file = os.fdopen(handle, "rb")
    try:
        check_kind(os.fstat(handle), path)  # it may have been exchanged in between
    except BaseException:
        file.close()
        raise
    return file


def read_inside(folder: Path, name: str, largest: int, links: bool = False) -> bytes:
    """The bytes of the regular file `name` of a folder; refuses as `inside` does, and files of more
    than `largest` bytes."""
    path = folder / name
    try:
        with open_inside(folder, name, links) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, largest) + 1)
    except OSError as error:
        raise unreadable_file_error(path, error) from None
    if len(data) > largest:
        raise DataError(
            f"it has {max(size, len(data)):,} bytes, and at most {largest:,} are read.",
            where=str(path),
            hint="check that it is the file that its name says",
        )
    return data


def names_inside(folder: Path, ending: str) -> list[str]:
    """The names in a folder that end in `ending`, sorted. Raises DataError where the folder cannot
    be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(ending))
    except OSError as error:
        raise unreadable_file_error(folder, error) from None


__all__ = ["inside", "is_plain_name", "names_inside", "open_inside", "read_inside"]
