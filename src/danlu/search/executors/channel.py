"""Messages between the process of a study and a process of a trial: one JSON object a line, in both directions."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO


class Channel:
    """One end of a connection. Several threads may send; one receives."""

    def __init__(
        self, reader: BinaryIO, writer: BinaryIO, wire: socket.socket | None = None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.wire = wire
        self._turn = threading.Lock()

    @classmethod
    def of(cls, wire: socket.socket) -> Channel:
        """The channel over a socket."""
        return cls(wire.makefile("rb"), wire.makefile("wb"), wire)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises OSError where nobody is left to read it."""
        line = json.dumps(message).encode() + b"\n"
        with self._turn:
            self.writer.write(line)
            self.writer.flush()

    def receive(self) -> dict[str, Any] | None:
        """The next message, waited for; None where the other end is gone."""
        try:
            line = self.reader.readline()
        except (OSError, ValueError):  # reset, or closed by another thread
            return None
        return (
            json.loads(line) if line.endswith(b"\n") else None
        )  # half a line: it died while it spoke

    def close(self) -> None:
        """Let go of this end: who receives on the other one gets None."""
        if self.wire is not None:
            with contextlib.suppress(OSError):
                self.wire.shutdown(
                    socket.SHUT_RDWR
                )  # else a thread that reads from it would keep it open
        for end in (self.writer, self.reader):
            with contextlib.suppress(OSError):  # what was not sent yet cannot be sent any more
                end.close()
        if self.wire is not None:
            self.wire.close()
