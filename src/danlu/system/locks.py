"""Which process a thing belongs to, and whether that one still lives: a file that its process holds locked until it ends."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


class ProcessLease:
    """This process as an owner: `name` is its own, and while it lives FOLDER/NAME is locked. A
    context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        self._held: int | None = None

    def __enter__(self) -> ProcessLease:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = _open(self.folder / self.name)
        _lock(self._held, wait=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._held is not None:
            with contextlib.suppress(OSError):
                (self.folder / self.name).unlink()
            os.close(self._held)
            self._held = None

    def is_alive(self, name: str) -> bool | None:
        """Whether the owner of this name lives; None where this machine cannot know (it was never
        here)."""
        if name == self.name:
            return True
        path = self.folder / Path(name).name
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            return not _lock(handle, wait=False)
        finally:
            os.close(handle)

    def remove(self, name: str) -> None:
        """Remove what a dead owner left."""
        with contextlib.suppress(OSError):
            (self.folder / Path(name).name).unlink()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait for the process that holds it."""
    handle = _open(path)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)


def _lock(handle: int, wait: bool) -> bool:
    """Whether the lock is ours now. Where the system has no such locks, it always is."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
