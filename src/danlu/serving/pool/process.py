"""A worker process as the front sees it: started, spoken to, listened to, ended."""

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
from typing import Any, Literal

from danlu.serving.messages import Message, Unpacker, pack

State = Literal["importing", "spare", "opening", "ready", "refused", "gone"]


class WorkerProcess(asyncio.Protocol):
    """One worker. `hear(worker, header, body)` is called for every message but beats,
    `gone(worker)` once, when it has ended.

    state     importing -> spare -> opening -> ready; refused: it could not open its model; gone
    since     when that state began
    heard     when it last said anything; `standing` since when its present step uses no CPU time
    """

    def __init__(
        self,
        form: str,
        hear: Callable[[WorkerProcess, dict[str, Any], bytes], None],
        gone: Callable[[WorkerProcess], None],
        threads: int,
    ) -> None:
        self.form = form
        self.hear = hear
        self.gone = gone
        self.threads = threads
        self.state: State = "importing"
        self.since = self.heard = self.standing = time.monotonic()
        self.step = 0.0  # seconds that its present step lasted at the last beat
        self.cpu = 0.0
        self.wish: dict[str, Any] | None = None
        self.about: dict[str, Any] = {}
        self.refusal: dict[str, str] = {}
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "danlu.serving.worker.main", str(theirs.fileno()), str(os.getpid()), form],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=_environment(threads),
                start_new_session=True,  # Ctrl-C at the terminal is for the front, which still owes answers
            )  # fmt: skip
        except BaseException:
            self._ours.close()
            raise
        finally:
            theirs.close()

    async def listen(self) -> None:
        """Begin to hear what it says."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=self._ours)

    def open(self, wish: dict[str, Any]) -> None:
        """Have it open a model as soon as it can."""
        self.wish = {"do": "open", "threads": self.threads, **wish}
        if self.state == "spare":
            self._set("opening")
            self.send(pack(self.wish))

    def send(self, data: bytes) -> None:
        """Say something to it; what it cannot hear any more is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def wants_to_run(self) -> bool:
        """Whether a thread of it waits for the processor: then it is starved, not hung. False where
        the system does not tell."""
        for path in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                if path.read_text().rpartition(") ")[2][:1] == "R":
                    return True
        return False

    def _set(self, state: State) -> None:
        self.state, self.since = state, time.monotonic()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=1 << 30)  # type: ignore[union-attr] - what may wait is bounded elsewhere

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            for message in self._unpacker.feed(data):
                self._take(message)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # it speaks nonsense: its memory is damaged
            self.kill()

    def _take(self, message: Message) -> None:
        header, body = message
        said = header["say"]
        if said == "beat":
            self._beat(header)
            return
        if said == "imported":
            self._set("spare")
            if self.wish is not None:
                self.open({key: value for key, value in self.wish.items() if key != "do"})
        elif said == "ready":
            self.about = header["about"]
            self.about["opening"] = header["seconds"]
            self._set("ready")
        elif said == "refused":
            self.refusal = header["error"]
            self._set("refused")
        self.hear(self, header, body)

    def _beat(self, header: dict[str, Any]) -> None:
        step = header["work"] or 0.0
        moved = header["cpu"] - self.cpu > 0.005
        if moved or step < self.step or not step:
            self.standing = self.heard
        self.step, self.cpu = step, header["cpu"]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        with contextlib.suppress(OSError):
            self.process.kill()  # it let go of the socket; whatever it is doing, nobody hears it
        state = self.state
        self._set("gone" if state != "refused" else "refused")
        asyncio.get_running_loop().run_in_executor(None, self.process.wait)
        self.gone(self)


def _environment(threads: int) -> dict[str, str]:
    """The environment of a worker: as many threads as it is given."""
    return {
        "OMP_WAIT_POLICY": "passive",
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }
