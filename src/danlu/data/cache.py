"""The cache on disk: tables, and columns that are costly to compute, found by their content.

    $DANLU_CACHE (or ~/.cache/danlu)
      tables/DIGEST/     one table: manifest.json (sealed) and one raw file per array
      columns/DIGEST/    one column that transforms computed (tokens), in the same form
      memo/SIGNATURE     the content hash of files with these names, sizes, times and inodes, so
                         that they need not be read again (sealed)

A table is written once and memory-mapped at every later start. DIGEST is the SHA-256 of the files'
names and bytes, the source, its options, the column options and the layout's version: one changed
byte makes another table. The memo is trusted only where every file was last changed more than two
seconds before it was hashed, since within a clock tick a file can change and keep its time and
size. A table is written to a temporary folder, which is then renamed.

What lies in the cache is believed only after proof. The manifest is sealed with a key of this user
(danlu.data.user_key) and names its own DIGEST, so no other process, user or copied folder can
write or exchange one; it holds the SHA-256 of every array, and at every start all bytes of all
arrays are hashed, a few megabytes at a time on all threads. Folders (0700) and files (0600) of
another user, open to others or behind links are not believed. What is not believed is written
again. Where the cache belongs to another user or cannot be written, a notice says so and the data
is read at every start.

Above 20 GiB (of tables, and of columns) those used least recently are removed; nothing else in
those folders is ever removed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from danlu import registry
from danlu.data import user_key
from danlu.errors import DataError
from danlu.reading.files import check_file, unreadable_file_error
from danlu.recipe import ColumnOptions, Part
from danlu.system import atomic_files, machine, private_files
from danlu.terms import KINDS, Column, Json, Table

if TYPE_CHECKING:
    from danlu.parts.sources._base import Source

PATH_OPTIONS = (
    "path",
    "test",
    "validation",
    "images",
    "labels",
    "test_images",
    "test_labels",
)  # options that say where files lie
LAYOUT = 3  # increased when tables written before must not be read any more
LIMIT = 20 * 2**30  # bytes of tables that are kept
_SETTLED = 2_000_000_000  # nanoseconds since the last change before a file's times are trusted
_BLOCK = 4 << 20  # bytes of an array that one thread hashes at a time
_MOST_MEMOS = 1000
_ENTRY = re.compile(r"[0-9a-f]{64}")  # the names of tables, columns and memos
_TYPES = ("<f8", "<f4", "<i8", "<i4", "<i2", "|i1", "<u4", "<u2", "|u1", "|b1")


@dataclass(frozen=True)
class _Shelf:
    """A folder of the cache that is this user's alone, and the key that seals what is in it."""

    folder: Path
    key: bytes


def _shelf(name: str) -> tuple[_Shelf | None, str]:
    """(the folder `name` of the cache, "") or, where it cannot be used, (None, a notice)."""
    hint = "so the data is read again at every start"
    try:
        folder = private_files.private_cache_folder(name)
    except (OSError, private_files.NotPrivate) as error:
        return None, f"{_refusal(error)}, {hint}; DANLU_CACHE names another folder."
    try:
        return _Shelf(folder, user_key.user_key()), ""
    except (OSError, private_files.NotPrivate) as error:
        hint += "; XDG_CONFIG_HOME names another folder for danlu/cache.key, which proves the cache"
        return None, f"{_refusal(error)}, {hint}."


def _refusal(error: OSError | private_files.NotPrivate) -> str:
    if isinstance(error, private_files.NotPrivate):
        return f"The cache is not used: {error}"
    return f"The cache cannot be written ({error.filename}: {error.strerror or error})"


def temporary_folder() -> Path | None:
    """A folder on the disk of the cache for files without a name; None where the cache cannot be
    used."""
    try:
        return private_files.private_cache_folder("temporary")
    except (OSError, private_files.NotPrivate):
        return None


def load_table(
    source: Part, columns: Mapping[str, ColumnOptions], use_cache: bool
) -> tuple[Table, str]:
    """(the table of a source, "sha256:..." of its content and of how it is read).

    With `use_cache` the table is memory-mapped (copy on write: changing it changes no file). A
    table whose cells are paths of images is read anew each time, since only the pixels tell whether
    it is the same. Raises what the source raises, and DataError where files change while they are
    read."""
    part = registry.source(source.name)
    settings = _settings(source, columns, part)
    pictures = part.names_images and any(
        column_options.kind == "image" for column_options in columns.values()
    )
    shelf, notice = _shelf("tables") if use_cache and not pictures else (None, "")
    for _ in range(2):
        paths = part.files(source.options)
        before = _signature(paths)
        digest = _digest(settings, _content(paths, before, shelf))
        # the table names its files, so where they lie is part of its place in the cache, and no
        # part of what it is
        entry = _digest(settings, [digest, *map(str, paths)])
        table = _opened(shelf, entry) if shelf else None
        if table is not None:
            return table, f"sha256:{digest}"
        table = registry.build_source(source, columns)
        if _signature(part.files(source.options)) == before:
            if pictures:
                return table, f"sha256:{_digest(settings, [digest, *_pixels(table)])}"
            if shelf is None:
                return _with_notice(table, notice), f"sha256:{digest}"
            return _kept(table, shelf, entry), f"sha256:{digest}"
    raise DataError(
        "the files change while they are read.",
        where=source.name,
        hint="wait until they are complete",
    )


def cached_column(key: Mapping[str, Json], make: Callable[[], Column]) -> Column:
    """The column that `make()` returns, memory-mapped; from the second time on it is read from disk
    and `make` is not called.

    `key` (JSON values) names everything that the column depends on, the version of the code that
    computes it included."""
    shelf, _ = _shelf("columns")
    if shelf is None:
        return make()
    entry = atomic_files.sha256(
        json.dumps({**key, "layout": LAYOUT}, sort_keys=True, ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )
    )
    table = _opened(shelf, entry)
    if table is None:
        column = make()
        table = _kept(Table({column.name: column}, "columns"), shelf, entry)
    return next(iter(table.columns.values()))


def _pixels(table: Table) -> list[str]:
    """The SHA-256 of every column of images."""
    return [
        hashlib.sha256(column.values.tobytes()).hexdigest()
        for column in table.columns.values()
        if column.kind == "image"
    ]


# --- what the data is -----------------------------------------------------------------------------


def _settings(source: Part, columns: Mapping[str, ColumnOptions], part: Source) -> dict[str, Any]:
    version = part.version
    column_settings: dict[str, dict[str, object]] = {
        name: {
            "kind": column_options.kind,
            "on_error": column_options.on_error,
            "use": column_options.use,
        }
        for name, column_options in sorted(columns.items())
    }
    for name, column_options in columns.items():
        if column_options.pixels is not None:
            column_settings[name]["size"] = column_options.pixels
    how = source.as_dict()
    for name in set(how) & set(PATH_OPTIONS):
        # which file has which role counts; the folder it lies in does not
        named = [how[name]] if isinstance(how[name], str) else how[name] or []
        names = [os.path.basename(path) for path in named]  # noqa: PTH119  Path.name differs for "a/"
        how[name] = [] if name == "path" else names
    return {
        "layout": LAYOUT,
        "source": how,
        "columns": column_settings,
        "version": version(source.options) if version else "",
    }


def _digest(settings: Mapping[str, Any], content: str | list[str]) -> str:
    return atomic_files.sha256(
        json.dumps({**settings, "content": content}, sort_keys=True, ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )
    )


def _signature(paths: Sequence[Path]) -> tuple[str, int]:
    """(a hash of the files' paths, sizes, times and inodes; the newest of the times in
    nanoseconds)."""
    newest = 0
    facts: list[list[str | int]] = []
    for path in paths:
        status = check_file(path)
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        facts.append(
            [
                os.path.abspath(path),  # noqa: PTH100 - resolve() would follow links
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                status.st_dev,
            ]
        )
    return atomic_files.sha256(json.dumps(facts).encode()), newest


def _content(paths: Sequence[Path], signature: tuple[str, int], shelf: _Shelf | None) -> str:
    """The SHA-256 of the files' bytes and of their names below their common folder, from the memo
    where it can be trusted."""
    if not paths:
        return ""
    remembered = _remembered(signature[0], shelf.key) if shelf else None
    if remembered is not None:
        return remembered
    begun = time.time_ns()
    total = hashlib.sha256()
    shared = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        try:
            with path.open("rb") as file:
                one = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable_file_error(path, error) from None
        total.update(json.dumps([os.path.relpath(path, shared), one]).encode())
    content = total.hexdigest()
    if shelf is not None and begun - signature[1] > _SETTLED:
        _remember(signature[0], content, shelf.key)
    return content


def _remembered(signature: str, key: bytes) -> str | None:
    """The content hash of files with this signature; None where the memo is missing or not to be
    believed."""
    path = private_files.cache_folder() / "memo" / signature
    try:
        memo = user_key.unseal(private_files.read_private(path, _BLOCK), key)
    except (OSError, ValueError, private_files.NotPrivate):
        return None
    return str(memo["content"]) if memo.get("signature") == signature else None


def _remember(signature: str, content: str, key: bytes) -> None:
    try:
        folder = private_files.private_cache_folder("memo")
        memos = [path for path in folder.iterdir() if _ENTRY.fullmatch(path.name)]
        if len(memos) > _MOST_MEMOS:
            for old in sorted(memos, key=_used)[: _MOST_MEMOS // 2]:
                old.unlink(missing_ok=True)
        sealed = user_key.seal({"signature": signature, "content": content}, key)
        private_files.replace_private(folder / signature, sealed)
    except (OSError, private_files.NotPrivate):
        return  # load_table tells of a cache that cannot be written


# --- a table on disk ------------------------------------------------------------------------------


def _kept(table: Table, shelf: _Shelf, entry: str) -> Table:
    """The table memory-mapped from disk after writing it there; where it cannot be written, the
    table as it is, with a notice."""
    target = shelf.folder / entry
    try:
        _write(table, target, shelf.key)
        private_files.close_to_others(target)  # it has the permissions of what it replaced
        _make_room(target)
        stored = _opened(shelf, entry)
    except OSError as error:
        stored = _opened(shelf, entry)  # another process may have been first
        if stored is None:
            cause = error.strerror or str(error)
            return _with_notice(
                table,
                f"The cache {shelf.folder.parent} cannot be written ({cause}), so the data is read "
                "again at every start; DANLU_CACHE names another.",
            )
    return stored if stored is not None else table


def _with_notice(table: Table, notice: str) -> Table:
    return replace(table, notices=(*table.notices, notice)) if notice else table


def _arrays(table: Table) -> dict[str, np.ndarray]:
    """Every array of a table by the name of its file."""
    arrays: dict[str, np.ndarray | None] = {
        "row_numbers": table.row_numbers,
        "file_numbers": table.file_numbers,
        "split": table.split,
        "continues": table.continues,
    }
    if table.row_names is not None:
        names = [name.encode("utf-8", "surrogateescape") for name in table.row_names]
        arrays["row_names.values"] = np.frombuffer(b"".join(names), dtype=np.uint8)
        arrays["row_names.offsets"] = np.cumsum([0, *map(len, names)], dtype=np.int64)
    for number, column in enumerate(table.columns.values()):
        arrays |= {
            f"{number}.values": column.values,
            f"{number}.offsets": column.offsets,
            f"{number}.missing": column.missing,
        }
    return {
        name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None
    }


def _write(table: Table, target: Path, key: bytes) -> None:
    if target.is_symlink():
        target.unlink()  # no folder can be renamed to it
    with atomic_files.atomic_folder(target) as beside:
        private_files.close_to_others(beside)
        arrays: dict[str, dict[str, object]] = {}
        for name, array in _arrays(table).items():
            data = array.reshape(-1).view(np.uint8)
            private_files.write_private(beside / f"{name}.bin", data.data)
            arrays[name] = {
                "type": array.dtype.str,
                "shape": list(array.shape),
                "sha256": _sha256(data),
            }
        columns = [
            {
                "name": column.name,
                "kind": column.kind,
                "categories": list(column.categories),
                "reason": column.reason,
                "names": list(column.names),
                "cardinalities": list(column.cardinalities),
                "rate": column.rate,
            }
            for column in table.columns.values()
        ]
        manifest = {
            "entry": target.name,  # else the table of other data could take this one's place
            "columns": columns,
            "origin": table.origin,
            "files": list(table.files),
            "notices": list(table.notices),
            "joined_by": table.joined_by,
            "arrays": arrays,
        }
        private_files.write_private(beside / "manifest.json", user_key.seal(manifest, key))


def _sha256(data: np.ndarray) -> str:
    """The SHA-256 of the SHA-256s of the blocks of an array of bytes, which threads compute side by
    side."""
    blocks = [data[start : start + _BLOCK].data for start in range(0, len(data), _BLOCK)]
    if len(blocks) == 1 or machine.threads() == 1:
        digests = map(_block_digest, blocks)
        return atomic_files.sha256(b"".join(digests))
    with ThreadPoolExecutor(min(len(blocks), machine.threads())) as threads:
        return atomic_files.sha256(b"".join(threads.map(_block_digest, blocks)))


def _block_digest(block: memoryview) -> bytes:
    return hashlib.sha256(block).digest()  # without the interpreter's lock


def _opened(shelf: _Shelf, entry: str) -> Table | None:
    """The table in a folder, memory-mapped; None where there is none, or one that is not to be
    believed."""
    folder = shelf.folder / entry
    try:
        private_files.check_private_folder(folder)
        sealed = private_files.read_private(folder / "manifest.json", atomic_files.LARGEST_MANIFEST)
        manifest = user_key.unseal(sealed, shelf.key)
        if manifest["entry"] != entry:
            raise ValueError("it is the manifest of another table")
        arrays = {
            name: _array(folder / f"{name}.bin", description)
            for name, description in manifest["arrays"].items()
        }
        table = _table(manifest, arrays)
    except (OSError, ValueError, KeyError, TypeError, private_files.NotPrivate):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / "manifest.json")  # the time of use, for _make_room
    return table


def _array(path: Path, description: Mapping[str, Any]) -> np.ndarray:
    shape = tuple(int(size) for size in description["shape"])
    if description["type"] not in _TYPES or min(shape, default=0) < 0:
        raise ValueError(f"{path.name} is described wrongly")
    dtype = np.dtype(description["type"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    with os.fdopen(private_files.open_private(path), "rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{path.name} does not have the size in the manifest")
        if size == 0:
            return np.zeros(shape, dtype=dtype)
        # what is hashed is what is used: the mapping, not the name, which could change between
        data = np.asarray(np.memmap(file, dtype=np.uint8, mode="c"))
    if _sha256(data) != description["sha256"]:
        raise ValueError(f"{path.name} has changed")
    return data.view(dtype).reshape(shape)


def _table(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Table:
    columns: dict[str, Column] = {}
    for number, description in enumerate(manifest["columns"]):
        if description["kind"] not in KINDS:
            raise ValueError("there is no such kind of column")
        columns[description["name"]] = Column(
            name=description["name"],
            kind=description["kind"],
            values=arrays[f"{number}.values"],
            categories=tuple(description["categories"]),
            offsets=arrays.get(f"{number}.offsets"),
            missing=arrays.get(f"{number}.missing"),
            reason=description["reason"],
            names=tuple(description["names"]),
            cardinalities=tuple(description["cardinalities"]),
            rate=description["rate"],
        )
    names = (
        RowNames(arrays["row_names.values"], arrays["row_names.offsets"])
        if "row_names.values" in arrays
        else None
    )
    return Table(
        columns=columns,
        origin=manifest["origin"],
        row_names=names,
        row_numbers=arrays.get("row_numbers"),
        files=tuple(manifest["files"]),
        file_numbers=arrays.get("file_numbers"),
        notices=tuple(manifest["notices"]),
        split=arrays.get("split"),
        continues=arrays.get("continues"),
        joined_by=manifest["joined_by"],
    )


class RowNames(Sequence[str]):
    """The names of rows, decoded one by one from memory-mapped bytes."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values = values
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        row = int(row)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(row)
        return bytes(self.values[self.offsets[row] : self.offsets[row + 1]]).decode(
            "utf-8", "surrogateescape"
        )


# --- room -----------------------------------------------------------------------------------------


def _make_room(newest: Path) -> None:
    """Removes the tables used least recently while all together exceed LIMIT, and what killed
    processes left. What has no name of ours is left alone."""
    atomic_files.remove_leftovers(newest.parent)
    sizes: dict[Path, int] = {}
    for entry in newest.parent.iterdir():
        if entry.is_symlink() or not entry.is_dir() or not _ENTRY.fullmatch(entry.name):
            continue
        if _is_private(entry):
            sizes[entry] = sum(path.lstat().st_size for path in entry.iterdir())
        else:
            shutil.rmtree(entry, ignore_errors=True)  # never believed, and perhaps private data
    total = sum(sizes.values())
    for entry in sorted(sizes, key=lambda path: _used(path / "manifest.json")):
        if total <= LIMIT:
            break
        if entry != newest:
            shutil.rmtree(entry, ignore_errors=True)
            total -= sizes[entry]


def _is_private(folder: Path) -> bool:
    try:
        private_files.check_private_folder(folder)
    except (OSError, private_files.NotPrivate):
        return False
    return True


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
