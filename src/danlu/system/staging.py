"""Staging folders: where files and folders are written before they take their names, in one step
that neither a kill nor a power cut can divide.

    .NAME.UUID.writing/    beside NAME
        mark               says that danlu made the folder, and for what; locked while its writer
                           lives
        new                what is being written; after an exchange, what was replaced
        old                what was replaced, on a file system that cannot exchange two names

An older folder is replaced by an exchange of both names in one step (renameat2 on Linux). Where
the system or file system has none, the older one is set aside first; a command that is killed
between the two steps is undone at the next start (`recover`).

Only what has such a name and its own mark inside, and whose writer is dead, is ever removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from danlu.errors import ArtifactError
from danlu.system.locks import lock_file

_MARK, _NEW, _OLD = "mark", "new", "old"
_FORM = re.compile(r"\.(.*)\.([0-9a-f]{32})\.(?:writing|old)", re.DOTALL)
_LONGEST_START = 100  # bytes of the target's name that the staging folder's name repeats
_LARGEST_MARK = 4096  # bytes
_NO_REPLACE, _EXCHANGE = 1, 2  # flags of renameat2
_HERE = -100  # AT_FDCWD: paths are relative to the current folder
# errors that say: this system or file system has no such call
_LACKING = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)


# --- syncing


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Raises OSError where the disk fails."""
    if os.name == "nt":  # Windows opens no folders
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Make a file, or a folder with all that is in it, survive a power cut. Links are left as they
    are."""

    def refuse(error: OSError) -> None:
        raise error

    if not path.is_dir():
        _sync_file(path)
        return
    for here, _, files in os.walk(path, onerror=refuse):
        for name in files:
            _sync_file(Path(here) / name)
        sync_folder(Path(here))


def _sync_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return
    handle = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | _NO_FOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that syncs no folders
            raise


# Windows lacks the first, and with the second it would change line ends
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that do not exist, so that they survive a power cut. Raises
    OSError where a file has its name."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            sync_folder(path.parent)


# --- a staging folder


class Staging:
    """A staging folder beside `target`, locked by this process.

    Write a file or a folder as `new`; `commit` then gives it the name of `target`. To be used as
    `with staged(target) as staging`."""

    def __init__(self, target: Path, kind: str = "writing") -> None:
        self.target = target
        identity = uuid.uuid4().hex
        name = target.name
        if name in ("", ".."):
            raise FileExistsError(errno.EEXIST, "this is no name for something new", str(target))
        self.folder = target.with_name(f".{_start(name)}.{identity}.{kind}")
        self.new, self.old = self.folder / _NEW, self.folder / _OLD
        self._mark = self.folder / _MARK
        self._handle: int | None = None
        self._created = self._exchanged = self._keep = False
        self.folder.mkdir(0o700)
        try:
            self._handle = os.open(
                self._mark, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600
            )
            # locked before it is written: a mark that is whole and not locked is of a dead writer
            lock_file(self._handle, wait=True)
            _write_all(self._handle, _mark(identity, name))
        except BaseException:
            self._discard()
            raise

    def write(self, data: bytes | memoryview, mode: int | None = None) -> None:
        """Write and sync a file as `new`, with the permissions `mode`; None: those of the file that
        it replaces, or of any new file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
        handle = os.open(self.new, flags, 0o666 if mode is None else mode)
        try:
            if mode is None:
                self._keep_permissions()
            else:
                self.new.chmod(mode)  # whatever the umask is
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)

    def commit(self) -> None:
        """Give `new`, which is synced, the name of the target; what had the name is replaced.

        Raises OSError; a folder is then what it was."""
        if self.new.is_dir():
            self._commit_folder()
        else:
            self.new.replace(self.target)
        try:
            sync_folder(self.target.parent)
        except OSError:
            self._undo()
            raise

    def _commit_folder(self) -> None:
        if not os.path.lexists(self.target):
            try:
                self.new.rename(self.target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise  # else another process was quicker: its folder is replaced
            else:
                self._created = True
                return
        self._keep_permissions()
        self._sync()
        if _renameat2(self.new, self.target, _EXCHANGE):
            self._exchanged = True
        else:
            self._replace_in_two_steps()

    def _keep_permissions(self) -> None:
        """Give `new` the permissions of what it replaces, if that is of its kind."""
        with contextlib.suppress(FileNotFoundError):
            before = self.target.lstat().st_mode
            if stat.S_IFMT(before) == stat.S_IFMT(self.new.lstat().st_mode):
                self.new.chmod(stat.S_IMODE(before) & 0o777)

    def commit_new(self) -> None:
        """Give the file `new` the name of the target. Raises FileExistsError where that is taken,
        also by a process that is as quick as this one."""
        if not _renameat2(self.new, self.target, _NO_REPLACE):
            try:
                os.link(self.new, self.target)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                if os.path.lexists(self.target):
                    raise FileExistsError(
                        errno.EEXIST, os.strerror(errno.EEXIST), str(self.target)
                    ) from None
                self.new.rename(self.target)
        sync_folder(self.target.parent)

    def finish(self) -> None:
        """Remove the staging folder and what was replaced. Raises ArtifactError where that
        fails: the target is complete then, and the older copy is still there."""
        try:
            _remove(self.folder)
        except OSError as error:
            raise ArtifactError(
                f"{self.target.name} is complete, and the copy that it replaced could not be"
                f" removed: {error.strerror or error}.",
                where=str(self.folder),
                hint="remove this folder",
            ) from None
        finally:
            self._release()

    def abandon(self) -> None:
        """After an error: remove the staging folder; what was set aside goes back."""
        with contextlib.suppress(OSError):
            if self._exchanged:
                sync_folder(self.target.parent)
            if not self._keep and _settle(self.folder, self.target):
                _remove(self.folder)
        self._release()

    def _sync(self) -> None:
        """Sync the mark and all names: what is exchanged must be known after a power cut too."""
        assert self._handle is not None
        os.fsync(self._handle)
        sync_folder(self.new)
        sync_folder(self.folder)
        sync_folder(self.target.parent)

    def _replace_in_two_steps(self) -> None:
        self.target.rename(self.old)
        try:
            sync_folder(self.folder)
            self.new.rename(self.target)
        except OSError:
            self._back(lambda: self.old.rename(self.target), self.old)
            raise

    def _undo(self) -> None:
        """Put the older folder back, after a commit that may not survive a power cut."""
        if self._created:
            self._back(lambda: self.target.rename(self.new), self.target)
        elif self._exchanged:
            self._back(lambda: _renameat2(self.new, self.target, _EXCHANGE), self.new)
            self._exchanged = False
        elif os.path.lexists(self.old):
            self._back(lambda: self.target.rename(self.new), self.old)
            self._back(lambda: self.old.rename(self.target), self.old)
        else:
            return
        try:
            sync_folder(self.target.parent)
        except OSError:  # which of both a power cut would leave is not known: both stay
            self._keep = True

    def _back(self, step: Callable[[], object], copy: Path) -> None:
        try:
            step()
        except OSError as error:
            self._keep = True
            raise ArtifactError(
                f"{self.target.name} could not be replaced, nor put back:"
                f" {error.strerror or error}.",
                where=str(copy),
                hint=f"this is the older copy: rename it to {self.target}",
            ) from None

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._mark.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def staged(target: Path, kind: str = "writing") -> Iterator[Staging]:
    """A staging folder for `target`, which is removed at the end. `kind` ends its name: writing, or
    old for what is only removed."""
    staging = Staging(target, kind)
    try:
        yield staging
    except BaseException:
        staging.abandon()
        raise
    staging.finish()


def create_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a new file, all or nothing, so that it survives a power cut; never replaces one. Raises
    FileExistsError where the name is taken."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with staged(path) as staging:
        staging.write(data, mode)
        staging.commit_new()


# --- what killed writers left


def recover(target: Path) -> bool:
    """Finish what killed commands left of `target`: what they had set aside gets its name back, and
    the rest is removed. Gives whether there was anything.

    Raises ArtifactError where it cannot be finished."""
    present = False
    for folder, name in _abandoned(target.parent):
        if name != target.name:
            continue
        present = True
        try:
            if _settle(folder, target):
                _remove(folder)
                continue
            reason = f"there is another {name} now"
        except OSError as error:
            reason = str(error.strerror or error)
        raise ArtifactError(
            f"a command that was killed left a copy of {name} here, and it can be neither put back"
            f" nor removed: {reason}.",
            where=str(folder),
            hint=f"move {folder / _OLD}, if there is one, to where you want it, and remove the"
            " folder",
        )
    return present


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Finish what killed writers left in `folder`, as `recover` does; of one name, or of all. What
    cannot be finished stays."""
    for leftover, of in _abandoned(folder):
        if name in (None, of):
            with contextlib.suppress(OSError):
                if _settle(leftover, folder / of):
                    _remove(leftover)


def _abandoned(parent: Path) -> Iterator[tuple[Path, str]]:
    """(staging folder, name of its target) of each writer that is dead. The folder is locked until
    the next one is taken."""
    try:
        with os.scandir(parent) as entries:
            names = [entry.name for entry in entries if entry.name[:1] == "."]
    except OSError:
        return
    for entry in sorted(names):
        match = _FORM.fullmatch(entry)
        if match is None or (handle := _open_mark(parent / entry)) is None:
            continue
        try:
            name = _read_mark(handle, match[1], match[2])
            if name is not None:
                yield parent / entry, name
        finally:
            os.close(handle)


def _open_mark(folder: Path) -> int | None:
    """The mark of a staging folder, opened and locked; None where there is none, or its writer
    lives."""
    try:
        import fcntl  # noqa: F401
    except ImportError:  # Windows: whether the writer lives is not known
        return None
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return None
        handle = os.open(folder / _MARK, os.O_RDWR | os.O_NONBLOCK | _NO_FOLLOW)
    except OSError:
        return None
    if lock_file(handle, wait=False):
        return handle
    os.close(handle)
    return None


def _read_mark(handle: int, start: str, identity: str) -> str | None:
    """The name of the target, where this is the mark of a staging folder of this identity."""
    info = os.fstat(handle)
    if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST_MARK:
        return None
    data = os.read(handle, _LARGEST_MARK)
    try:
        name = json.loads(data)["name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or data != _mark(identity, name):
        return None
    plain = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return name if plain and _start(name) == start else None


def _start(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_START].decode("utf-8", "ignore")


def _mark(identity: str, name: str) -> bytes:
    text = {"made by": "danlu", "what": "staging folder", "id": identity, "name": name}
    return json.dumps(text).encode() + b"\n"


def _settle(folder: Path, target: Path) -> bool:
    """Undo a replacement that was cut between its two steps; whether the rest may be removed."""
    old, new = folder / _OLD, folder / _NEW
    if not os.path.lexists(old):
        return True
    if os.path.lexists(target):
        return not os.path.lexists(new)
    if not os.path.lexists(new):
        return False
    old.rename(target)
    sync_folder(target.parent)
    return True


def _remove(folder: Path) -> None:
    """Remove a staging folder, unless something else was put into it."""
    if {path.name for path in folder.iterdir()} - {_MARK, _NEW, _OLD}:
        return
    for name in (_NEW, _OLD):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / _MARK).unlink(missing_ok=True)
    folder.rmdir()


def _write_all(handle: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(handle, rest) :]


# --- renameat2


@lru_cache(1)
def _call() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # another system, or an old C library
        return None


def _renameat2(one: Path, other: Path, flags: int) -> bool:
    """Rename with flags of Linux; False where the system or file system cannot."""
    call = _call()
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _LACKING:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
