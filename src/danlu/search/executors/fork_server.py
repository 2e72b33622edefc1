"""A process with everything imported from which workers are forked within milliseconds. Linux.

A process that trains cannot be forked safely: its threads, and the locks they hold, do not exist in
the child. So the process of a study starts this one, which never trains and has one thread
(`python -m danlu.search.executors.fork_server FD PID`), and sends it packets over a socket:
  requests  {"start": key} with the socket of the worker's channel; {"kill": key}
  answers   {"threads": n} once everything is imported; {"key", "code"} for each worker that ended
When the process of the study ends, this process and all its workers end too (PR_SET_PDEATHSIG: also
after kill -9, and also where a worker hangs).
"""

from __future__ import annotations

import contextlib
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

from danlu.system.child_process import die_with_parent

_PACKET = 4096  # bytes, more than any packet has


class ForkServer:
    """The client's side of the server.

    `on_end(key, code)` is called in a thread for every worker that has ended; code None: the server
    itself was lost. `is_single_threaded` is False where a library started threads at its import:
    then the server must not be used.
    """

    def __init__(self, on_end: Callable[[int, int | None], None]) -> None:
        self.on_end = on_end
        self.control, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # numpy's own threads would give the server threads; torch counts its own.
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "danlu.search.executors.fork_server",
                str(server_end.fileno()),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[server_end.fileno()],
            env=environment,
            # Ctrl-C at the terminal is for the process of the study, which passes it on.
            start_new_session=True,
        )
        server_end.close()
        self.alive: set[int] = set()
        self._lock = threading.Lock()
        ready = self._receive_packet()
        self.is_single_threaded = ready is not None and ready["threads"] == 1
        if self.is_single_threaded:
            threading.Thread(target=self._receive_messages, name="fork server", daemon=True).start()

    def start(self, key: int, connection: socket.socket) -> None:
        """Fork a worker whose channel is `connection`. Raises OSError where the server was lost."""
        with self._lock:
            self.alive.add(key)
        try:
            request = json.dumps({"start": key}).encode()
            socket.send_fds(self.control, [request], [connection.fileno()])
        except OSError:
            with self._lock:
                self.alive.discard(key)
            raise

    def kill(self, key: int) -> None:
        """Kill -9 a worker that still lives. Only its parent can: to others its process number may
        belong to another process by now."""
        with contextlib.suppress(OSError):
            self.control.send(json.dumps({"kill": key}).encode())

    def close(self) -> None:
        """End the server and every worker that is left."""
        self.control.close()
        self.process.kill()
        self.process.wait()

    def _receive_packet(self) -> dict[str, Any] | None:
        try:
            packet = self.control.recv(_PACKET)
        except OSError:
            return None
        return json.loads(packet) if packet else None

    def _receive_messages(self) -> None:
        while (ended := self._receive_packet()) is not None:
            with self._lock:
                self.alive.discard(ended["key"])
            self.on_end(ended["key"], ended["code"])
        with self._lock:
            left, self.alive = self.alive, set()
        for key in left:
            self.on_end(key, None)


# --- what runs in the server's process


def _serve(control: socket.socket) -> NoReturn:
    """Start and kill workers as requested, and report each that has ended."""
    keys: dict[int, int] = {}  # by process number
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, wake_reader], [], [])
        if wake_reader in ready:
            os.read(wake_reader, _PACKET)
            _report_ended(keys, control)
        if control in ready:
            packet, connections, _, _ = socket.recv_fds(control, _PACKET, 1)
            if not packet:
                os._exit(0)
            request = json.loads(packet)
            if "start" in request:
                process = _fork(connections[0], control, wake_reader, wake_writer)
                keys[process] = request["start"]
                os.close(connections[0])
            else:
                for process in [number for number, key in keys.items() if key == request["kill"]]:
                    os.kill(process, signal.SIGKILL)


def _report_ended(keys: dict[int, int], control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (waited := os.waitpid(-1, os.WNOHANG))[0]:
            key = keys.pop(waited[0])
            control.send(
                json.dumps({"key": key, "code": os.waitstatus_to_exitcode(waited[1])}).encode()
            )


def _fork(connection: int, control: socket.socket, *pipe: int) -> int:
    """Fork a worker whose channel is the socket `connection`; its process number."""
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
        from danlu.search.executors.worker import run_worker

        run_worker(Channel.from_socket(socket.socket(fileno=connection)))
    finally:
        os._exit(70)


def main() -> NoReturn:
    """Import everything, report it, and serve requests."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import danlu.search.executors.worker
    import danlu.training.loop  # noqa: F401 - it imports everything that a training needs

    gc.collect()
    gc.freeze()  # else the collector of each worker would copy the pages that all workers share
    control.send(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}).encode())
    _serve(control)


if __name__ == "__main__":
    main()
