"""Messages between the process of a study and a worker: one JSON object per line, both ways."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import IO, Any


class Channel:
    """One end of a connection. Several threads may send; one receives."""

    def __init__(
        self, reader: IO[bytes], writer: IO[bytes], connection: socket.socket | None = None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.socket = connection
        self._lock = threading.Lock()

    @classmethod
    def from_socket(cls, connection: socket.socket) -> Channel:
        """The channel over a socket.

        >>> ends = [Channel.from_socket(end) for end in socket.socketpair()]
        >>> ends[0].send({"say": "hello"})
        >>> ends[1].receive()
        {'say': 'hello'}
        >>> for end in ends:
        ...     end.close()
        """
        return cls(connection.makefile("rb"), connection.makefile("wb"), connection)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises OSError where the other end is closed."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self.writer.write(line)
            self.writer.flush()

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None where the other end is closed."""
        try:
            line = self.reader.readline()
        except (OSError, ValueError):  # reset, or closed by another thread
            return None
        # Half a line: the sender died while it wrote.
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Close this end; a `receive` on the other end returns None."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                # Without it a thread that reads from the socket would keep it open.
                self.socket.shutdown(socket.SHUT_RDWR)
        for end in (self.writer, self.reader):
            with contextlib.suppress(OSError):  # what is still unsent cannot be sent any more
                end.close()
        if self.socket is not None:
            self.socket.close()
