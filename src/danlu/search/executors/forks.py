"""Work in a forked process that shares this one's memory: it sends messages and waits for answers.

The child never returns to the code that forked it, computes with one thread, dies with its parent,
and gives all its memory back when it ends. Linux; elsewhere the same work is done in this process.
"""

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
from danlu.search.executors.failure import describe_failure
from danlu.system.child_process import die_with_parent

Exchange = Callable[[dict[str, Any]], dict[str, Any]]  # sends a message and returns its answer
# Bytes. glibc returns what is freed above its thresholds to the system, and asks for it again at
# the next step.
_MALLOC_THRESHOLD = 1 << 29


def can_fork() -> bool:
    """Whether work can be forked on this system."""
    return sys.platform == "linux"


class Fork:
    """A child process that runs `work(exchange)`.

    `receive` gets its messages and `answer` answers them. Its last message is
    {"say": "ended", "code": ...}. What it prints goes to the file `log`.
    """

    def __init__(self, work: Callable[[Exchange], None], log: Path) -> None:
        parent_end, child_end = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            parent_end.close()
            _run_child(work, Channel.from_socket(child_end), log, parent)
        child_end.close()
        self.socket = parent_end
        self.channel = Channel.from_socket(parent_end)
        self.last_message_at = time.monotonic()
        self.code: int | None = None

    def fileno(self) -> int:
        """The file descriptor to wait on for a message (select)."""
        return self.socket.fileno()

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """Wait for the next message; {"say": "silent"} after `seconds` without one."""
        if seconds is not None and not select.select([self], [], [], seconds)[0]:
            return {"say": "silent"}
        message = self.channel.receive()
        self.last_message_at = time.monotonic()
        if message is not None:
            return message
        return {"say": "ended", "code": self._reap()}

    def answer(self, message: dict[str, Any]) -> None:
        """Answer the last message."""
        with contextlib.suppress(OSError):  # it has died: the next `receive` says so
            self.channel.send(message)

    def kill(self) -> None:
        """End the child at once, whatever it does."""
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


def _run_child(work: Callable[[Exchange], None], channel: Channel, log: Path, parent: int) -> None:
    """The whole life of a child process."""
    code = 1
    try:
        die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # the parent handles them and ends its children
        log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log_file, 1)
        os.dup2(log_file, 2)
        keep_memory()
        # The parent's other threads do not exist in a child, so a lock that one of them holds is
        # never released: the child must not start threads that would wait for it.
        sys.modules["torch"].set_num_threads(1)

        def exchange(message: dict[str, Any]) -> dict[str, Any]:
            channel.send(message)
            return channel.receive() or {}

        work(exchange)
        code = 0
    except BaseException as error:
        failure = describe_failure(error)
        with contextlib.suppress(OSError):
            channel.send({"say": "failed", "kind": failure.kind, "cause": failure.message})
    finally:
        os._exit(code)  # without cleaning up what belongs to the parent


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step.

    A stack frees and requests megabytes in each step, and fresh pages cost as much as the
    arithmetic: with it a trial-step takes 540 microseconds instead of 831 (16 perceptrons
    784-128-10, one core).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, _MALLOC_THRESHOLD)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, _MALLOC_THRESHOLD)  # M_MMAP_THRESHOLD
