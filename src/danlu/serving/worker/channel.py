"""A worker's end of the socket to the HTTP process, and the signs of life that it sends there."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterable

from danlu.serving.protocol.messages import ToWorker, Unpacker, pack

BEAT_SECONDS = 0.5  # between two signs of life
_RECEIVE_BYTES = 1 << 20


class Channel:
    """The worker's end of the socket. Two threads send; one receives."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._lock = threading.Lock()
        self._unpacker = Unpacker[ToWorker]()
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, *messages: bytes) -> None:
        """Send packed messages. Raises OSError where the HTTP process has gone."""
        self.send_all(messages)

    def send_all(self, messages: Iterable[bytes]) -> None:
        """Send packed messages, those of one iterable in one piece."""
        if data := b"".join(messages):
            with self._lock:
                self.end.sendall(data)

    def receive(self, wait: bool) -> list[tuple[ToWorker, bytes]]:
        """The messages that have arrived; with `wait`, at least one. Raises EOFError where the HTTP
        process has gone."""
        messages: list[tuple[ToWorker, bytes]] = []
        while not messages or self._poll.poll(0):
            if not messages and not wait and not self._poll.poll(0):
                return messages
            data = self.end.recv(_RECEIVE_BYTES)
            if not data:
                raise EOFError
            messages += self._unpacker.feed(data)
        return messages


class Heartbeat:
    """A thread that tells the HTTP process twice a second that this process lives, and how long its
    present step has lasted.

    step_began   when the present step began (time.monotonic()); None between steps
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.step_began: float | None = None
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def _run(self) -> None:
        while True:
            began = self.step_began
            work = None if began is None else round(time.monotonic() - began, 3)
            beat = {"say": "beat", "work": work, "cpu": round(time.process_time(), 3)}
            with contextlib.suppress(OSError):
                self.channel.send(pack(beat))
            time.sleep(BEAT_SECONDS)
