"""uvicorn, told to listen on a socket that is bound already, with connections that are bounded and no signals of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
import time
from collections.abc import Generator
from typing import Any

import uvicorn

from danlu.serving.http.connection import Connection
from danlu.serving.http.fast_path import connections
from danlu.serving.http.security import Gate
from danlu.serving.settings import Settings

_LOOK = 0.5  # seconds between two looks at slow clients
_AT_THE_END = 5.0  # seconds that connections get to close
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
_BEGINNING = 0x02  # the flag SYN among the flags of a TCP header, byte 13


class Front(uvicorn.Server):
    """The HTTP server; `use` tells it what to serve before it begins."""

    def __init__(self, settings: Settings, end: socket.socket) -> None:
        self.end = end
        self.settings = settings
        super().__init__(
            uvicorn.Config(
                _unset,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=int(settings.idle_seconds),
                backlog=2048,
                timeout_graceful_shutdown=int(_AT_THE_END),
                proxy_headers=False,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
        )

    def use(self, app: Gate) -> None:
        """Serve this app."""
        self.config.app = app
        self.config.http = connections(app)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """None: danlu.serving.server hears them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to look at slow clients."""
        await super().startup(sockets)
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def refuse_connections(self) -> None:
        """Have the system begin no connection more; those that it has begun are completed and
        taken, so that none is reset at the end."""
        try:
            _begin_no_more(self.end)
        except OSError:  # no Linux: the few that are under way may be reset
            self.end.listen(0)

    def stop_listening(self) -> None:
        """Take no connection more."""
        for server in self.servers:
            server.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                connection.check(now)  # type: ignore[union-attr, attr-defined]


def _begin_no_more(end: socket.socket) -> None:
    """Have Linux drop the segments that begin a connection (SYN) and let all others through, by a
    classic BPF program on the socket.

    A closed backlog would not do: it drops the ends of handshakes too, and their clients, who think
    themselves connected, are reset.
    Source: Linux, Documentation/networking/filter.rst. Raises OSError where there is no such thing.
    """
    if not sys.platform.startswith("linux"):
        raise OSError("socket filters are Linux's")
    load, test, answer = (
        0x30,
        0x45,
        0x06,
    )  # BPF_LD|BPF_B|BPF_ABS, BPF_JMP|BPF_JSET|BPF_K, BPF_RET|BPF_K
    steps = ((load, 0, 0, 13), (test, 0, 1, _BEGINNING), (answer, 0, 0, 0), (answer, 0, 0, 0xFFFF))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in steps))
    end.setsockopt(
        socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(program))
    )


async def _unset(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the app is not set yet")
