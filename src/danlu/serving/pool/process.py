"""A worker process as the HTTP process sees it: started, sent messages, heard, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from danlu.serving.protocol.messages import (
    Beat,
    FromWorker,
    ModelDescription,
    ModelOptions,
    OpenError,
    OpenModel,
    Unpacker,
    pack,
)

State = Literal["importing", "spare", "opening", "ready", "refused", "gone"]
_MOVED = 0.005  # seconds of processor time between two beats that count as work


class WorkerProcess(asyncio.Protocol):
    """One worker process.

    `on_message(worker, header, body)` is called for every message but signs of life,
    `on_end(worker)` once, when the process has ended.

    state           importing -> spare -> opening -> ready; "refused" where it could not open its
                    model; "gone" after its end
    heard_at        when its last message came (time.monotonic())
    idle_since      since when its present step has used no processor time
    step_seconds    how long its present step had lasted at the last sign of life
    """

    def __init__(
        self,
        form: str,
        on_message: Callable[[WorkerProcess, FromWorker, bytes], None],
        on_end: Callable[[WorkerProcess], None],
        threads: int,
    ) -> None:
        self.form = form
        self.on_message = on_message
        self.on_end = on_end
        self.threads = threads
        self.state: State = "importing"
        self.heard_at = self.idle_since = time.monotonic()
        self.step_seconds = 0.0
        self.cpu_seconds = 0.0
        self.open_request: OpenModel | None = None
        self.description: ModelDescription = {}
        self.open_error: OpenError | None = None
        self._unpacker = Unpacker[FromWorker]()
        self._transport: asyncio.Transport | None = None
        self._socket, workers_end = socket.socketpair()
        self._socket.setblocking(False)
        try:
            self.process = _start(workers_end, form, threads)
        except BaseException:
            self._socket.close()
            raise
        finally:
            workers_end.close()

    async def listen(self) -> None:
        """Begin to receive its messages."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=self._socket)

    def open(self, path: Path, name: str, options: ModelOptions) -> None:
        """Have it open a model as soon as it has imported its libraries."""
        self.open_request = {
            "do": "open",
            "threads": self.threads,
            "path": str(path),
            "name": name,
            "options": options,
        }
        if self.state == "spare":
            self._send_open_request()

    def _send_open_request(self) -> None:
        if self.open_request is not None:
            self.state = "opening"
            self.send(pack(self.open_request))

    def send(self, data: bytes) -> None:
        """Send a packed message; it is lost where the process has ended."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(OSError):
            self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def is_runnable(self) -> bool:
        """Whether one of its threads runs or waits for a processor: then it is starved, not hung.
        False where the system does not tell (/proc is Linux's)."""
        for path in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                if path.read_text().rpartition(") ")[2][:1] == "R":
                    return True
        return False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are no subclass of asyncio.Transport.
        self._transport = transport = cast("asyncio.Transport", transport)
        # What may wait is bounded by admission, in bytes of all bodies.
        transport.set_write_buffer_limits(high=1 << 30)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            for header, body in self._unpacker.feed(data):
                self._receive(header, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.kill()  # what it sends is no message: its memory is damaged

    def _receive(self, header: FromWorker, body: bytes) -> None:
        if header["say"] == "beat":
            self._receive_beat(header)
            return
        if header["say"] == "imported":
            self.state = "spare"
            self._send_open_request()
        elif header["say"] == "ready":
            self.description = header["description"]
            self.description["opening"] = header["seconds"]
            self.state = "ready"
        elif header["say"] == "refused":
            self.open_error = header["error"]
            self.state = "refused"
        self.on_message(self, header, body)

    def _receive_beat(self, beat: Beat) -> None:
        step = beat["work"] or 0.0
        moved = beat["cpu"] - self.cpu_seconds > _MOVED
        if moved or step < self.step_seconds or not step:
            self.idle_since = self.heard_at
        self.step_seconds, self.cpu_seconds = step, beat["cpu"]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        with contextlib.suppress(OSError):
            self.process.kill()  # it closed its socket: nothing that it still does can be received
        if self.state != "refused":
            self.state = "gone"
        asyncio.get_running_loop().run_in_executor(None, self.process.wait)
        self.on_end(self)


def _start(workers_end: socket.socket, form: str, threads: int) -> subprocess.Popen[bytes]:
    fd = workers_end.fileno()
    module = "danlu.serving.worker.main"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(fd), str(os.getpid()), form],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd],
        env=_environment(threads),
        # Ctrl-C at the terminal reaches the HTTP process alone, which still owes answers.
        start_new_session=True,
    )


def _environment(threads: int) -> dict[str, str]:
    return {
        "OMP_WAIT_POLICY": "passive",
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }
