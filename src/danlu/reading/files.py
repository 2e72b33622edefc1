"""Reading data files: whole or in blocks, gzip or plain; unusable files are refused with a remedy.

Refused are missing files, folders, pipes, devices, loops of links, unreadable files and files too
large for the memory; every DataError names the file and the remedy. A gzip file is recognised by
its first bytes, not by its name. What it decompresses to is counted while it is decompressed
(danlu.reading.decoded_size), so that a small file cannot fill the memory."""

from __future__ import annotations

import io
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from danlu.errors import DataError, nearest
from danlu.reading.decoded_size import DecodedSize
from danlu.system import machine

FREE_BYTES = 2**26  # of a compressed file: 64 MiB are decompressed whatever its size
_BLOCK = 2**20
_FIRST_BYTES = 2**12  # of a gzip member: a file can hold a member for every 20 of its bytes
_ZEROS = re.compile(rb"\0*")
_WILD = frozenset("*?[")


def check_file(path: Path) -> os.stat_result:
    """The os.stat_result of a regular file; DataError for everything else.

    >>> check_file(Path("nowhere.csv"))
    Traceback (most recent call last):
    danlu.errors.DataError: nowhere.csv: there is no such file...
    """
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise missing_file_error(path) from None
    except NotADirectoryError:
        raise missing_file_error(path) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable_file_error(path, error) from None
    check_kind(facts, path)
    return facts


def check_kind(facts: os.stat_result, path: Path) -> None:
    """Raise DataError where the os.stat_result is not one of a regular file; messages call the file
    `path`."""
    where = str(path)
    if stat.S_ISDIR(facts.st_mode):
        raise DataError("this is a folder, not a file.", where=where, hint="name a file in it")
    if not stat.S_ISREG(facts.st_mode):
        kinds = {
            stat.S_IFIFO: "a pipe",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
        }
        what = kinds.get(stat.S_IFMT(facts.st_mode), "no regular file")
        raise DataError(
            f"this is {what}, which cannot be read twice.",
            where=where,
            hint="save the data as a file",
        )


def missing_file_error(path: Path) -> DataError:
    """The DataError for a file that does not exist; it proposes the most similar name in its
    folder."""
    folder = path.parent
    try:
        beside = [neighbour.name for neighbour in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        beside = []
    near = nearest(path.name, beside, 1)
    if near:
        return DataError(
            "there is no such file.", where=str(path), hint=f"did you mean {folder / near[0]}?"
        )
    if not folder.is_dir():
        return DataError(
            f"there is no such file, and no folder {folder}.",
            where=str(path),
            hint="paths start at the current folder",
        )
    return DataError(
        "there is no such file.", where=str(path), hint="paths start at the current folder"
    )


def unreadable_file_error(path: Path, error: Exception) -> DataError:
    """The DataError for a file that exists and cannot be read."""
    import errno

    if isinstance(error, RuntimeError) or (
        isinstance(error, OSError) and error.errno == errno.ELOOP
    ):
        return DataError(
            "this is a loop of symbolic links.", where=str(path), hint="name the file itself"
        )
    if isinstance(error, PermissionError):
        return DataError(
            "permission to read it is denied.",
            where=str(path),
            hint="change its permissions, or copy it",
        )
    cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return DataError(f"it cannot be read: {cause}.", where=str(path), hint="check the path")


def expand_paths(paths: str | Sequence[str], suffixes: Iterable[str]) -> list[Path]:
    """The files that `paths` name. A folder stands for its files that end in one of `suffixes`, a
    pattern (data/*.csv) for the files that match; both are sorted.

    DataError where a folder or pattern matches no file. Other paths are returned unchecked.

    >>> expand_paths(["b.csv", "a.csv"], [".csv"]) == [Path("b.csv"), Path("a.csv")]
    True
    """
    files: list[Path] = []
    for text in [paths] if isinstance(paths, str) else paths:
        path = Path(text)
        if os.path.isdir(text):  # noqa: PTH112  Path.is_dir raises where the text holds a NUL
            files += _in_folder(path, tuple(suffixes))
        elif _WILD & set(text) and not os.path.lexists(text):
            files += _matching(text)
        else:
            files.append(path)
    return files


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise unreadable_file_error(folder, error) from None
    inside = [
        folder / name
        for name in names
        if name.lower().endswith(suffixes) and not name.startswith(".")
    ]
    if not inside:
        raise DataError(
            f"the folder holds no file ending in {', '.join(suffixes)}.",
            where=str(folder),
            hint="name the files",
        )
    return inside


def _matching(pattern: str) -> list[Path]:
    import glob

    inside = sorted(Path(path) for path in glob.glob(pattern, recursive=True))  # noqa: PTH207  takes absolute patterns as well
    inside = [path for path in inside if not path.is_dir()]
    if not inside:
        raise DataError(
            "no file matches the pattern.", where=pattern, hint="paths start at the current folder"
        )
    return inside


def read_file(path: Path, free: int = FREE_BYTES) -> bytes:
    """The content of a file, decompressed where it is gzip: `free` bytes of it whatever its size.

    DataError where it is not readable, larger than a third of the free memory, damaged, or a
    decompression bomb."""
    facts = check_file(path)
    check_memory(facts.st_size, path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable_file_error(path, error) from None
    return gunzip(content, path, free) if content[:2] == b"\x1f\x8b" else content


def check_memory(size: int, path: Path) -> None:
    """DataError where `size` bytes of a file are more than a third of the memory that is free."""
    free = machine.memory()[1]
    if size > free / 3:  # the file, its columns, and some room
        raise DataError(
            f"it has {size / 2**30:,.1f} GiB, and this machine has {free / 2**30:,.1f} GiB of "
            "memory free.",
            where=str(path),
            hint="divide it into several files and sample them, or take a machine with more memory",
        )


def gunzip(content: bytes, path: Path, free: int = FREE_BYTES) -> bytes:
    """The content of a gzip file with one or several members; messages call it `path`. `free` bytes
    are decompressed whatever its size.

    DataError where it is truncated, damaged or a decompression bomb.

    >>> import gzip
    >>> gunzip(gzip.compress(b"a") + gzip.compress(b"b"), Path("x.gz"))
    b'ab'
    """
    return b"".join(_inflated(io.BytesIO(content), len(content), path, free))


def read_blocks(path: Path) -> Iterator[bytes]:
    """The content of a file in non-empty blocks of at most 1 MiB, decompressed where it is gzip;
    for files larger than the memory."""
    facts = check_file(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if zipped:
                yield from _inflated(file, facts.st_size, path, FREE_BYTES)
                return
            while piece := file.read(_BLOCK):
                yield piece
    except OSError as error:
        raise unreadable_file_error(path, error) from None


def _inflated(file: IO[bytes], size: int, path: Path, free: int) -> Iterator[bytes]:
    """The content of a gzip file of `size` bytes, block by block."""
    decoded = DecodedSize(size, str(path), free=free)
    unread = _Unread(file)
    while unread.begins_with(b"\x1f\x8b"):
        stream = zlib.decompressobj(wbits=31)
        step = _FIRST_BYTES
        while not stream.eof:
            compressed = stream.unconsumed_tail or unread.take(step)
            step = _BLOCK
            try:
                piece = stream.decompress(compressed, _BLOCK)
            except zlib.error as error:
                raise DataError(
                    f"the compressed data are damaged ({error}).",
                    where=str(path),
                    hint="download it again",
                ) from None
            if not compressed and not piece:
                raise DataError(
                    "the compressed data end too early.", where=str(path), hint="download it again"
                )
            decoded.add(len(piece), unread.taken - len(stream.unconsumed_tail))
            if piece:
                yield piece
        unread.give_back(len(stream.unused_data))
        unread.skip_zeros()  # after a member they are padding
    if not unread.ended:
        raise DataError(
            "bytes that are not gzip follow the compressed data.",
            where=str(path),
            hint="compress it again",
        )


class _Unread:
    """The bytes of a file that were not taken yet; `taken` counts those that were."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.taken = 0
        self._block = file.read(_BLOCK)
        self._at = 0

    @property
    def ended(self) -> bool:
        """Whether no byte is left."""
        if self._at == len(self._block):
            self._block, self._at = self.file.read(_BLOCK), 0
        return not self._block

    def begins_with(self, mark: bytes) -> bool:
        """Whether the next bytes are `mark`."""
        if len(self._block) - self._at < len(mark):
            self._block, self._at = self._block[self._at :] + self.file.read(_BLOCK), 0
        return self._block.startswith(mark, self._at)

    def take(self, most: int) -> bytes:
        """Between 1 and `most` bytes; none at the end."""
        if self.ended:
            return b""
        piece = self._block[self._at : self._at + most]
        self._at += len(piece)
        self.taken += len(piece)
        return piece

    def give_back(self, count: int) -> None:
        """The last `count` bytes of what was taken last are unread again."""
        self._at -= count
        self.taken -= count

    def skip_zeros(self) -> None:
        """Take the zero bytes that come next."""
        while not self.ended:
            match = _ZEROS.match(self._block, self._at)
            assert match is not None  # it matches no byte as well
            self.taken += match.end() - self._at
            self._at = match.end()
            if self._at < len(self._block):
                return


def display_names(paths: Sequence[Path]) -> list[str]:
    """What messages call each file: its name, or its whole path where two share a name.

    >>> display_names([Path("a/x.csv"), Path("b/x.csv"), Path("b/y.csv")])
    ['a/x.csv', 'b/x.csv', 'y.csv']
    """
    counts = Counter(path.name for path in paths)
    return [path.name if counts[path.name] == 1 else str(path) for path in paths]
