"""The memory of this process: what it has taken, and a limit on what it may take more.

The limit is the system's (RLIMIT_DATA: the private memory that a process has asked for), so it also
binds libraries that are not Python. What goes beyond it raises MemoryError where the library
answers for its own memory, and ends the process where it does not. On systems other than Linux
nothing is limited."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "linux":
    import resource


def taken() -> int:
    """Bytes of private memory that this process has asked for; 0 where the system does not say.

    >>> taken() >= 0
    True
    """
    return _of_status("VmData")


def resident() -> int:
    """Bytes of memory that this process occupies; 0 where the system does not say."""
    return _of_status("VmRSS")


def _of_status(name: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def limit(more: int) -> None:
    """Let this process take at most `more` bytes of memory beyond what it has, from now on."""
    _set(taken() + more)


@contextlib.contextmanager
def limited(more: int) -> Iterator[None]:
    """Inside the `with`, this process takes at most `more` bytes beyond what it has: MemoryError,
    or the error that a library raises in its place."""
    if sys.platform != "linux" or not taken():
        yield
        return
    before, _ = resource.getrlimit(resource.RLIMIT_DATA)
    _set(taken() + more)
    try:
        yield
    finally:
        _restore(before)


def _set(size: int) -> None:
    if sys.platform == "linux" and taken():
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([size, *bounds]), hard))


def _restore(soft: int) -> None:
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
