"""Atomic files: a reader, also after a crash, sees all of a file or folder, or nothing of it.

They are written under another name, synced and renamed (danlu.system.staging), and checked when
they are read. Whatever danlu writes is written so, but for logs, which are appended to."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danlu.errors import ArtifactError, RunError, nearest
from danlu.system import encryption
from danlu.system.staging import (
    Staging,
    create_file,
    make_folder,
    recover,
    remove_leftovers,
    staged,
    sync_folder,
    sync_tree,
)

__all__ = [
    "LARGEST_FILE",
    "LARGEST_MANIFEST",
    "append",
    "atomic_folder",
    "create_file",
    "link_error",
    "make_folder",
    "not_found",
    "open_log",
    "parse_checked",
    "read_checked",
    "read_checked_json",
    "read_regular",
    "recover",
    "remove_folder",
    "remove_leftovers",
    "rename_folder",
    "replace_file",
    "require_inside",
    "sha256",
    "staged",
    "sync_folder",
    "sync_tree",
    "with_checksum",
    "write_file",
]

LARGEST_MANIFEST = 64 << 20  # bytes
LARGEST_FILE = 1 << 40


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write one file into a folder of `atomic_folder`, which syncs it at its end. A link of this
    name is not followed."""
    # Windows lacks the second, and with the third it would change line ends
    flags = os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o666)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def append(file: io.FileIO, data: bytes) -> None:
    """Append all bytes to an unbuffered file: on a disk that is nearly full, one write may take
    only some of them. Raises OSError where there is no more room."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def open_log(path: Path) -> io.FileIO:
    """A file opened to be read, and appended to; it survives a power cut from `os.fsync` on.

    Raises RunError where it is a link or no file. Where another name leads to the same bytes (a
    hard link), this one gets a copy of them first."""
    try:
        handle = _open_log(path)
        if os.fstat(handle).st_nlink > 1:
            os.close(handle)
            replace_file(path, read_regular(path, LARGEST_FILE))
            handle = _open_log(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_error(path) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RunError("this is not a regular file.", where=str(path), hint="remove it")
    return os.fdopen(handle, "a+b", buffering=0)


def _open_log(path: Path) -> int:
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe of this name would wait for its other end
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | flags, 0o666)
    if new:
        sync_folder(path.parent)
    return handle


def link_error(path: Path) -> RunError:
    """The error for a link in a folder that is written to."""
    return RunError(
        "this is a link, and links in a folder are not followed when it is written to.",
        where=str(path),
        hint="remove the link, or put a copy of what it leads to in its place",
    )


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Replace one file atomically: a reader, and a run after a crash, sees the old bytes or the new
    ones."""
    remove_leftovers(path.parent, path.name)
    with staged(path) as staging:
        staging.write(data)
        staging.commit()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into. At the end of the block all of it is synced and it gets the name
    `target`, in place of an older `target`; where the block raises, nothing of it is left."""
    make_folder(target.parent)
    with staged(target) as staging:
        staging.new.mkdir()
        yield staging.new
        rename_folder(staging.new, target, staging)


def rename_folder(folder: Path, target: Path, staging: Staging | None = None) -> None:
    """Rename a folder, in which everything is synced first, to `target`; what has that name is
    replaced in the same step. `staging` is that of `target`, where the folder is its `new`."""
    if staging is None:
        with staged(target) as staging:
            folder.rename(staging.new)
            rename_folder(staging.new, target, staging)
    else:
        sync_tree(folder)
        staging.commit()


def remove_folder(folder: Path) -> None:
    """Remove a folder under another name: a kill leaves all of it or nothing under its own."""
    with staged(folder, "old") as staging:
        folder.rename(staging.new)
        sync_folder(folder.parent)


def not_found(path: Path, what: str) -> ArtifactError:
    """The error for a path at which nothing is; the hint is the most similar name beside it.

    `what` is the message."""
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings, 1)
    return ArtifactError(
        what, where=str(path), hint=f"did you mean {path.parent / near[0]}?" if near else ""
    )


def require_inside(outer: Path, folder: Path) -> Path:
    """Return `folder`, which is `outer` or a folder inside it. Raises ArtifactError where it is a
    link that leads out of `outer`."""
    if folder != outer and not folder.resolve().is_relative_to(outer.resolve()):
        raise ArtifactError(
            "the run's artifact is a link to a place outside the run; such links are not followed.",
            where=str(folder),
            hint="name the folder that it leads to",
        )
    return folder


def read_regular(path: Path, largest: int) -> bytes:
    """The bytes of a regular file; of an encrypted one (danlu.system.encryption) the plain bytes.

    Raises OSError where it cannot be read, ValueError where it is a link, no regular file or larger
    than `largest` bytes, and ArtifactError where it cannot be decrypted."""
    # Windows lacks the first two, everything else the third
    handle = os.open(
        path,
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_BINARY", 0),
    )
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or path.is_symlink():
            raise ValueError(f"{path.name} is not a regular file")
        start = file.read(len(encryption.MAGIC))
        encrypted = encryption.is_encrypted(start)
        most = encryption.encrypted_size(largest) if encrypted else largest
        if info.st_size > most:
            raise ValueError(
                f"{path.name} has {info.st_size:,} bytes, and at most {largest:,} are read"
            )
        # not `most`: read() reserves as much memory as it is asked for
        data = start + file.read(info.st_size + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} grew while it was read")
    if encrypted:
        data = encryption.decrypt_file(path, data)
    if len(data) > largest:
        raise ValueError(f"{path.name} has more than {largest:,} bytes")
    return data


def with_checksum(value: Mapping[str, object]) -> bytes:
    """JSON on one line and the SHA-256 of that line on the next, so that every change of it is
    noticed.

    >>> parse_checked(with_checksum({"format": 1}))
    {'format': 1}
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
    return line + b"\n" + sha256(line).encode() + b"\n"


def parse_checked(data: bytes) -> dict[str, Any]:
    """The value that `with_checksum` wrote. Raises ValueError where its bytes have changed."""
    line, newline, rest = data.partition(b"\n")
    if not newline or rest != sha256(line).encode() + b"\n":
        raise ValueError("its checksum does not match")
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a mapping")
    return value


def read_checked_json(path: Path) -> dict[str, Any]:
    """The value of a file of `with_checksum`. Raises as `read_regular` and `parse_checked` do."""
    return parse_checked(read_regular(path, LARGEST_MANIFEST))


def read_checked(path: Path, size: int, checksum: str) -> bytes:
    """The bytes of a file of known size and SHA-256. Raises as `read_regular` does, and ValueError
    where size or checksum differ."""
    if type(size) is not int or not 0 <= size <= LARGEST_FILE:
        raise ValueError(f"the size of {path.name} is noted as {size!r} bytes")
    data = read_regular(path, size)
    if len(data) != size:
        raise ValueError(f"{path.name} has {len(data):,} bytes, not {size:,}")
    if sha256(data) != checksum:
        raise ValueError(f"the checksum of {path.name} does not match")
    return data
