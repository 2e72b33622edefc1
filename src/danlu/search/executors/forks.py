"""A piece of work in a forked process that shares what this one has in memory: it sends messages, waits for answers, and ends.

The child never returns to the code that forked it, computes with one thread, dies with its parent,
and its memory goes back to the system with it. Linux: elsewhere the same work is done in this
process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from danlu.search.executors.channel import Channel

Say = Callable[[dict[str, Any]], dict[str, Any]]  # a message, and its answer
_KEPT = (
    1 << 29
)  # bytes: glibc gives back what is freed above its thresholds, and asks for it again at the next step


def can_fork() -> bool:
    """Whether work may be forked here."""
    return sys.platform == "linux"


class Fork:
    """A child that runs `work(say)`; `receive` hears it, `answer` lets it go on. Its last message
    is {"say": "ended", "code": ...}."""

    def __init__(self, work: Callable[[Say], None], log: Path) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _live(work, Channel.of(theirs), log)
        theirs.close()
        self.wire = ours
        self.channel = Channel.of(ours)
        self.heard = time.monotonic()
        self.code: int | None = None

    def fileno(self) -> int:
        """What to wait on for a message."""
        return self.wire.fileno()

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next message, waited for; {"say": "silent"} where none comes within `seconds`."""
        if seconds is not None and not select.select([self], [], [], seconds)[0]:
            return {"say": "silent"}
        message = self.channel.receive()
        self.heard = time.monotonic()
        if message is not None:
            return message
        return {"say": "ended", "code": self._reap()}

    def answer(self, message: dict[str, Any]) -> None:
        """Answer the last message."""
        with contextlib.suppress(OSError):  # it died meanwhile: the next message tells
            self.channel.send(message)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap()
        self.channel.close()

    def _reap(self) -> int:
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        return self.code


def _live(work: Callable[[Say], None], channel: Channel, log: Path) -> None:
    """The whole life of a child."""
    code = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(
            1, signal.SIGKILL
        )  # PR_SET_PDEATHSIG: nothing goes on for a study that is gone
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(each, signal.SIG_IGN)  # the parent hears them, and ends its children
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(written, 1)
        os.dup2(written, 2)
        keep_memory()
        # the parent may have used several threads; what they wait for is not in a child, which so
        # must never start any
        sys.modules["torch"].set_num_threads(1)

        def say(message: dict[str, Any]) -> dict[str, Any]:
            channel.send(message)
            return channel.receive() or {}

        work(say)
        code = 0
    except BaseException as error:
        from danlu.search.executors.failure import cause_of

        cause = cause_of(error)
        with contextlib.suppress(OSError):
            channel.send({"say": "failed", "kind": cause.kind, "cause": cause.sentence})
    finally:
        os._exit(code)  # no cleaning up of what belongs to the parent


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step. A stack frees and asks for megabytes in each,
    and fresh pages cost as much as the arithmetic: 831 microseconds a trial-step became 540 (16
    perceptrons 784-128-10, one core)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, _KEPT)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, _KEPT)  # M_MMAP_THRESHOLD
