"""Locks between processes, and whether another process still lives.

A process that holds a lease keeps a file locked until it ends, however it ends: whoever finds the
file unlocked knows that the process is gone."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


class ProcessLease:
    """Proof that this process lives: while it does, the file FOLDER/NAME is locked.

    `name` is unique; write it beside what the process owns. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        self._handle: int | None = None

    def __enter__(self) -> ProcessLease:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._handle = _open(self.folder / self.name)
        lock_file(self._handle, wait=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                (self.folder / self.name).unlink()
            os.close(self._handle)
            self._handle = None

    def abandon(self) -> None:
        """End the lease as the end of its process does: the file stays, and is no longer locked, so
        that others know this process to be gone."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def is_alive(self, name: str) -> bool | None:
        """Whether the process with the lease `name` lives; None where this machine cannot know,
        because no such process ran here."""
        if name == self.name:
            return True
        path = self.folder / Path(name).name
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            return not lock_file(handle, wait=False)
        finally:
            os.close(handle)

    def remove(self, name: str) -> None:
        """Remove the file of a process that has ended."""
        with contextlib.suppress(OSError):
            (self.folder / Path(name).name).unlink()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` until the end of the block; wait while another process holds it."""
    handle = _open(path)
    try:
        lock_file(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """A lock file, made where it does not exist. Raises OSError where it is a link: what it leads
    to is another's."""
    # Windows has neither
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)


def lock_file(handle: int, wait: bool) -> bool:
    """Lock an open file until it is closed. Whether this process holds the lock now; always where
    the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
