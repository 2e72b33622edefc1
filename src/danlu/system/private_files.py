"""Folders and files that belong to this user alone.

What danlu keeps outside a run (the cache of tables, programs that torch compiled, the key of the
cache) can hold private data, and is believed at the next start. So folders are made with the
permissions 0700 and files with 0600, whatever the umask is, and nothing is believed that another
user owns, that another user may write, or that a link leads to. Where a system has no such owners
(Windows), its own access lists stand for them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from danlu.system import atomic_files

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ADMINISTRATOR = 0  # the user root, who could read and change everything anyway
_CACHE_FOLDERS = ("tables", "columns", "memo", "temporary", "compiled", "matplotlib")


class NotPrivate(Exception):
    """A folder or file that is not this user's alone; its text says why, as half a sentence that
    begins with the path."""


def cache_folder() -> Path:
    """The folder of the cache: $DANLU_CACHE, else ~/.cache/danlu. Raises FileNotFoundError where
    neither is known."""
    override = os.environ.get("DANLU_CACHE")
    return Path(override) if override else _home_folder() / ".cache" / "danlu"


def config_folder() -> Path:
    """The folder of what this user's runs share: $XDG_CONFIG_HOME/danlu, else ~/.config/danlu.
    Raises FileNotFoundError where neither is known."""
    override = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # a relative path is to be ignored, says the XDG Base Directory Specification
    return (override if override.is_absolute() else _home_folder() / ".config") / "danlu"


def private_config_folder() -> Path:
    """`config_folder`, made where it is missing and closed to other users. Raises NotPrivate where
    it belongs to another user, and OSError where it cannot be made."""
    folder = config_folder()
    _make_folder(folder)
    close_to_others(folder.resolve())
    return folder


def private_cache_folder(name: str) -> Path:
    """The folder `name` (one of _CACHE_FOLDERS) in the folder of the cache, made where it is
    missing.

    All of these folders that others may enter are closed to them, and the folder of the cache as
    well, unless something else lies in it. Raises NotPrivate where the cache or one of the folders
    belongs to another user or is a link, and OSError where it cannot be made."""
    home = cache_folder()
    _make_folder(home)
    _check_owner(home, {_user(), _ADMINISTRATOR})  # as /tmp or a volume of a container: root's
    home = home.resolve()
    _make_folder(home / name)
    present = {entry.name for entry in home.iterdir()}
    for each in present.intersection(_CACHE_FOLDERS) - {name}:
        with contextlib.suppress(OSError, NotPrivate):  # it is not the one asked for
            close_to_others(home / each)
    close_to_others(home / name)
    if present.issubset(_CACHE_FOLDERS) and home.stat().st_uid == _user():
        close_to_others(home)
    return home / name


def keep_inside_cache(variable: str, name: str, *settings: str) -> None:
    """Let a library keep what it computes in the folder `name` of the cache, by its environment
    variable: its own choice would be the home folder, or one below /tmp that another user can have
    made before. The variable stays as it is where it is set, or where the user has files of
    `settings` (paths below the home folder) for this library."""
    if variable in os.environ:
        return
    with contextlib.suppress(OSError, NotPrivate):
        if not any((_home_folder() / path).exists() for path in settings):
            os.environ[variable] = str(private_cache_folder(name))


def close_to_others(folder: Path) -> None:
    """Take the rights of all other users away from a folder of this user. Raises NotPrivate where
    it is another user's folder, a link, no folder, or keeps the rights."""
    if sys.platform == "win32":
        return
    _check_owner(folder, {_user()})
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{folder} is no folder")
    if status.st_mode & _OTHERS:
        folder.chmod(stat.S_IRWXU)
        if folder.lstat().st_mode & _OTHERS_WRITE:
            raise NotPrivate(f"{folder} can be written by other users, whatever its permissions")


def check_private_folder(folder: Path) -> None:
    """Raises NotPrivate for a folder that another user owns or may enter and for a link,
    FileNotFoundError where there is none."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{folder} is no folder")
    _check_private(folder, status)


def open_private(path: Path) -> int:
    """A handle for reading a file that only this user may read or write. Raises NotPrivate for
    any other file and for a link, OSError where it cannot be opened."""
    # Windows lacks the first two, everything else the third
    handle = os.open(
        path,
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_BINARY", 0),
    )
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NotPrivate(f"{path} is no regular file")
        _check_private(path, status)
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_private(path: Path, largest: int) -> bytes:
    """The bytes of a file that only this user may read or write. Raises as `open_private` does,
    and NotPrivate where it has more than `largest` bytes."""
    with os.fdopen(open_private(path), "rb") as file:
        data = file.read(min(largest, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > largest:
        raise NotPrivate(f"{path} has more than {largest:,} bytes")
    return data


def write_private(path: Path, data: bytes | memoryview) -> None:
    """Write a new file that only this user may read or write, into a folder of
    `atomic_files.atomic_folder`."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)  # a umask can take rights of the user, too
    atomic_files.write_file(path, data)


def replace_private(path: Path, data: bytes | memoryview) -> None:
    """Write a file that only this user may read or write, atomically; one that is there is
    replaced."""
    with atomic_files.staged(path) as staging:
        staging.write(data, stat.S_IRUSR | stat.S_IWUSR)
        staging.commit()


def _check_private(path: Path, status: os.stat_result) -> None:
    if sys.platform == "win32":
        return
    if status.st_uid != _user():
        raise NotPrivate(f"{path} belongs to {_user_name(status.st_uid)}")
    if status.st_mode & _OTHERS:
        raise NotPrivate(f"{path} is open to other users")


def _home_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        raise FileNotFoundError(2, "this user has no home folder", "~") from None


def _make_folder(folder: Path) -> None:
    """A folder and those above it, as far as they are missing, open to this user alone."""
    if folder.is_dir():
        return
    if not folder.parent.exists():
        _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another process may have been first
        folder.mkdir(stat.S_IRWXU)
        folder.chmod(stat.S_IRWXU)
    if not folder.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(folder))


def _check_owner(path: Path, owners: set[int]) -> None:
    """Raises NotPrivate where neither the file at `path` (nor, for a link, what it leads to)
    belongs to one of the users `owners`."""
    if sys.platform == "win32":
        return
    for status in (path.lstat(), path.stat()):
        if status.st_uid not in owners:
            raise NotPrivate(f"{path} belongs to {_user_name(status.st_uid)}")


def _user() -> int:
    return 0 if sys.platform == "win32" else os.geteuid()


def _user_name(number: int) -> str:
    try:
        import pwd

        return f"the user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"the user {number}"
