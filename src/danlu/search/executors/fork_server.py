"""A process with everything imported that never trains and has one thread; workers are forked from it in milliseconds. Linux.

Forking a process that trains is unsound: its threads, and what they hold, are not in the child. So the process of a study starts this
one (`python -m danlu.search.executors.fork_server FD PID`) and asks it over a socket of packets:
  asks    {"start": key} with the socket of the worker's channel; {"kill": key}
  hears   {"threads": n} once everything is imported; {"key", "code"} for each worker that has ended
It ends, and with it every worker, when the process of the study does (PR_SET_PDEATHSIG, so also where that one was killed -9 and a worker
hangs).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_PACKET = 4096  # bytes, more than any packet has
_PR_SET_PDEATHSIG = 1


class Nursery:
    """The asking side. `ended(key, code)` is called in a thread for every worker that has ended;
    code None: the nursery itself has gone."""

    def __init__(self, ended: Callable[[int, int | None], None]) -> None:
        self.ended = ended
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # numpy's own threads would make the nursery one with threads; torch counts its own
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "danlu.search.executors.fork_server", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment,
            start_new_session=True,  # Ctrl-C at the terminal is for the process of the study, which passes it on
        )  # fmt: skip
        theirs.close()
        self.alive: set[int] = set()
        self._turn = threading.Lock()
        hello = self._hear()
        self.sound = hello is not None and hello["threads"] == 1
        if self.sound:
            threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def start(self, key: int, wire: socket.socket) -> None:
        """Fork a worker that speaks over `wire`. Raises OSError where the nursery has gone."""
        with self._turn:
            self.alive.add(key)
        try:
            socket.send_fds(self.control, [json.dumps({"start": key}).encode()], [wire.fileno()])
        except OSError:
            with self._turn:
                self.alive.discard(key)
            raise

    def kill(self, key: int) -> None:
        """Kill -9 a worker, if it still lives: only its parent knows that its number is not another
        process's by now."""
        with contextlib.suppress(OSError):
            self.control.send(json.dumps({"kill": key}).encode())

    def close(self) -> None:
        """End it, and every worker that is left."""
        self.control.close()
        self.process.kill()
        self.process.wait()

    def _hear(self) -> dict[str, Any] | None:
        try:
            packet = self.control.recv(_PACKET)
        except OSError:
            return None
        return json.loads(packet) if packet else None

    def _listen(self) -> None:
        while (told := self._hear()) is not None:
            with self._turn:
                self.alive.discard(told["key"])
            self.ended(told["key"], told["code"])
        with self._turn:
            left, self.alive = self.alive, set()
        for key in left:
            self.ended(key, None)


# --- what runs in it


def die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent, which is process `parent`, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


def _tend(control: socket.socket) -> NoReturn:
    """Start and kill workers as asked, and tell of each that has ended."""
    born: dict[int, int] = {}  # process number: key
    heard, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, heard], [], [])
        if heard in ready:
            os.read(heard, _PACKET)
            _bury(born, control)
        if control in ready:
            packet, wires, _, _ = socket.recv_fds(control, _PACKET, 1)
            if not packet:
                os._exit(0)
            wish = json.loads(packet)
            if "start" in wish:
                born[_fork(wires[0], control, heard, wake)] = wish["start"]
                os.close(wires[0])
            else:
                for process in [process for process, key in born.items() if key == wish["kill"]]:
                    os.kill(process, signal.SIGKILL)


def _bury(born: dict[int, int], control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            key = born.pop(found[0])
            control.send(
                json.dumps({"key": key, "code": os.waitstatus_to_exitcode(found[1])}).encode()
            )


def _fork(wire: int, control: socket.socket, *pipe: int) -> int:
    """A worker that speaks over the socket `wire`; its process number."""
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        control.close()
        for end in pipe:
            os.close(end)
        from danlu.search.executors.channel import Channel
        from danlu.search.executors.worker import work

        work(Channel.of(socket.socket(fileno=wire)))
    finally:
        os._exit(70)


def main() -> NoReturn:
    """Import everything, say so, and tend workers."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import danlu.search.executors.worker
    import danlu.training.loop  # noqa: F401 - with it, everything

    gc.collect()
    gc.freeze()  # else the collector of each worker would copy the pages that all share
    control.send(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}).encode())
    _tend(control)


if __name__ == "__main__":
    main()
