"""Atomic files: a reader, also after a crash, sees all of a file or folder, or nothing of it.

They are written under another name, synced and renamed, and checked when they are read.
Checkpoints, artifacts and the cache are written so."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danlu.errors import ArtifactError, nearest
from danlu.system import encryption

LARGEST_MANIFEST = 64 << 20  # bytes
LARGEST_FILE = 1 << 40


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write and sync one file in place, inside a folder that is renamed later."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append(file: io.FileIO, data: bytes) -> None:
    """Append all bytes to an unbuffered file: on a disk that is nearly full, one write may take
    only some of them. Raises OSError where there is no more room."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def replace_file(path: Path, data: bytes) -> None:
    """Replace one file atomically: a reader, and a run after a crash, sees the old bytes or the new
    ones."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.writing")
    try:
        write_file(beside, data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into. At the end of the block it is renamed to `target`, and replaces
    an older `target`; where the block raises, nothing of it is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.writing")
    beside.mkdir()
    try:
        yield beside
        sync_folder(beside)
        rename_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder to `target`, replacing what has that name; both names are synced."""
    if target.exists():
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(target)
    sync_folder(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left in `folder`. Only the process that holds the folder's lock
    may call it."""
    for pattern in (".*.writing", ".*.old"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


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
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
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
