"""uvicorn on a socket that is bound already, with bounded connections and no signals of its own."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
import time

from danlu.compat import uvicorn
from danlu.serving.http.connection import Connection
from danlu.serving.http.fast_path import connection_class
from danlu.serving.http.secured_app import SecuredApp
from danlu.serving.protocol.settings import Settings

_WATCH_SECONDS = 0.5  # between two checks for slow clients
_SHUTDOWN_SECONDS = 5  # that connections get to close at the end
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
_SYN = 0x02  # the flag among the flags of a TCP header, byte 13


class HttpServer(uvicorn.HttpServer):
    """The HTTP server. `use` gives it the app before it begins.

    Where uvicorn lacks a private name that danlu.compat.uvicorn needs, plain uvicorn serves the
    app: with the same answers, and with uvicorn's own bounds on headers and connections."""

    def __init__(self, settings: Settings, end: socket.socket) -> None:
        self.end = end
        self.settings = settings
        super().__init__(
            {
                "ws": "none",
                "lifespan": "off",
                "log_config": None,
                "access_log": False,
                "server_header": False,
                "date_header": True,
                "timeout_keep_alive": int(settings.idle_seconds),
                "backlog": 2048,
                "timeout_graceful_shutdown": _SHUTDOWN_SECONDS,
                "proxy_headers": False,
                "ssl_certfile": settings.tls_certificate,
                "ssl_keyfile": settings.tls_key,
            },
            uvicorn.fallback_options(settings.connections, settings.most_header),
        )

    def use(self, app: SecuredApp) -> None:
        """Serve this app."""
        self.set_app(app, lambda: connection_class(app))

    def open_connections(self) -> int | None:
        """How many connections are open; None where uvicorn does not tell."""
        connections = self.connections()
        return None if connections is None else len(connections)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen until `should_exit`; slow clients are disconnected meanwhile."""
        watch = asyncio.get_running_loop().create_task(self._watch_clients())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()

    def refuse_connections(self) -> None:
        """Have the system begin no connection any more. Those that it has begun are completed and
        accepted, so that none is reset at the end."""
        try:
            _drop_new_connections(self.end)
        except OSError:  # not Linux: the few connections that are under way may be reset
            self.end.listen(0)

    async def _watch_clients(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for connection in self.connections() or ():
                if isinstance(connection, Connection):
                    connection.end_if_slow(now)


def _drop_new_connections(end: socket.socket) -> None:
    """Have Linux drop the segments that begin a connection (SYN) and let all others through, by a
    classic BPF program on the socket.

    A backlog of 0 would not do: it drops the last segments of handshakes too, and their clients,
    which believe themselves connected, are reset.
    Source: Linux, Documentation/networking/filter.rst. Raises OSError where there is no such
    filter."""
    if not sys.platform.startswith("linux"):
        raise OSError("socket filters are Linux's")
    load_byte = 0x30  # BPF_LD | BPF_B | BPF_ABS
    jump_if_set = 0x45  # BPF_JMP | BPF_JSET | BPF_K
    accept = 0x06  # BPF_RET | BPF_K: so many bytes of the segment
    steps = (
        (load_byte, 0, 0, 13),
        (jump_if_set, 0, 1, _SYN),
        (accept, 0, 0, 0),
        (accept, 0, 0, 0xFFFF),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    address = struct.pack("@HP", len(steps), ctypes.addressof(program))
    end.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, address)
