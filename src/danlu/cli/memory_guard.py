"""End a command with a message shortly before the system would kill it without a word, where a
container limits its memory (danlu.system.memory_group)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from danlu.system import memory_group

_FASTEST = 4 << 30  # bytes a second that a process can fill
_LEAST_ROOM, _MOST_ROOM = 32 << 20, 256 << 20  # bytes left when a command is ended


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside the `with`, this process ends with a message and exit code 2 when its group has no
    more memory for it. Without a limit nothing is watched.

    It looks the more often the less room there is: seldom, where there is much."""
    if memory_group.limit() is None:
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=(done,), name="memory guard", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(done: threading.Event) -> None:
    from danlu.system import machine  # in this thread: no command starts later for it

    while not done.is_set():
        found = memory_group.limit()
        if found is None:
            return
        least = min(_MOST_ROOM, max(_LEAST_ROOM, found.size // 25))
        # in a group that others have filled, this process is not the one to end
        if found.room < least and machine.resident_memory() > (found.size - found.room) / 2:
            _end(found)
        done.wait(min(2.0, max(0.005, (found.room - least) / _FASTEST)))


def _end(found: memory_group.Limit) -> None:
    message = (
        f"\nout of memory: this container may use {found.size / 1e9:,.2f} GB, and they are used "
        "up.\nhint: lower train.batch_size or train.micro_batch, use less data, or give the "
        "container more memory; a training goes on from its last checkpoint with the same "
        "command\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
    os._exit(2)  # nothing that needs memory: everything on disk is whole at any moment
