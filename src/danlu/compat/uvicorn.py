"""uvicorn's connections and server, entered below their public interface.

The public interface of uvicorn is its `Config`, its `Server` with `serve` and `should_exit`, and an
ASGI app. danlu's HTTP server wants more: a bound on headers and on slow clients, refusals that cost
no parsing, answers that need no task, the number of open connections. It takes them from the
protocol class for httptools, whose names are private (checked with uvicorn 0.50 to 0.59).

`HttpConnection` gives those private things names of danlu's own. Where uvicorn lacks one of them,
`missing_names()` says so, and `HttpServer` runs plain uvicorn with its public options: the same
answers, more slowly, with uvicorn's own bounds (`fallback_options`). tests/compat/test_uvicorn.py
runs both and compares their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
else:
    try:
        from uvicorn.protocols.http.flow_control import FlowControl
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:  # moved, or httptools is not installed
        FlowControl = object
        HttpToolsProtocol = asyncio.Protocol

SCOPE_KEY = "danlu.connection"  # the key of an ASGI scope under which its HttpConnection is

# What HttpConnection and HttpServer use, beside the methods of asyncio.Protocol.
_CONNECTION_NAMES = (
    "connections", "cycle", "expect_100_continue", "flow", "headers", "on_body",
    "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete",
    "parser", "scope", "send_400_response", "server_state", "transport",
)  # fmt: skip
_FLOW_NAMES = ("pause_reading", "read_paused", "resume_reading")
_SERVER_NAMES = ("capture_signals", "server_state", "servers")


def missing_names() -> list[str]:
    """The private names of uvicorn that danlu uses and that this version lacks.

    >>> missing_names()
    []
    """
    kinds = (
        (HttpToolsProtocol, _CONNECTION_NAMES),
        (FlowControl, _FLOW_NAMES),
        (uvicorn.Server, _SERVER_NAMES),
    )
    return [
        f"{kind.__name__}.{name}"
        for kind, names in kinds
        for name in names
        if name not in _names_of(kind)
    ]


def _names_of(kind: type) -> set[str]:
    """The methods of a class, and the attributes that they use (an instance, which would tell them
    plainly, needs a running server)."""
    functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
    return set(dir(kind)).union(*(function.__code__.co_names for function in functions))


class _Event:
    def set(self) -> None: ...


class _OwnCycle:
    """Stands where uvicorn has the state of a request (its "cycle"), for a request that danlu
    answers itself."""

    message_event = _Event()

    def __init__(self, keep_alive: bool) -> None:
        self.response_complete = False
        self.response_started = False
        self.disconnected = False
        self.keep_alive = keep_alive


class _Flow(FlowControl):
    """uvicorn's pauses of reading, beside which a connection can hold reading by itself: nothing is
    read while either wants so.

    on_resume   called when uvicorn wants to read on
    """

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self.transport = transport
        self.on_resume = on_resume
        self.is_held = False

    def pause_reading(self) -> None:
        if self.is_held:
            self.read_paused = True
        else:
            super().pause_reading()

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()
        elif self.read_paused:
            self.read_paused = False
            self.on_resume()

    def hold(self) -> None:
        if not self.is_held:
            self.is_held = True
            if not self.read_paused:
                self.transport.pause_reading()

    def let_go(self) -> None:
        if self.is_held:
            self.is_held = False
            if not self.read_paused:
                self.transport.resume_reading()


class HttpConnection(HttpToolsProtocol):
    """One connection of a client.

    url        of the present request, as it came
    headers    of the present request: (name in lower case, value)
    """

    url: bytes
    headers: list[tuple[bytes, bytes]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._own_cycle = _OwnCycle(keep_alive=True)

    @property
    def open_connections(self) -> int:
        """The connections of the server that are open, this one among them."""
        return len(self.connections)

    @property
    def all_connections(self) -> Iterator[HttpConnection]:
        """The open connections of the server, this one among them."""
        return (other for other in self.connections if isinstance(other, HttpConnection))

    @property
    def is_idle(self) -> bool:
        """Whether no request of this connection waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def may_answer(self) -> bool:
        """Whether an answer can be written: none is under way."""
        return self.is_idle or not self.cycle.response_started

    @property
    def is_reading(self) -> bool:
        """Whether what comes is still parsed."""
        return self.parser is not None

    @property
    def method(self) -> bytes:
        """The method of the present request."""
        assert self.parser is not None
        return self.parser.get_method()

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends the body only after "100 Continue"."""
        return self.expect_100_continue

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport, self.on_reading_wanted)  # type: ignore[assignment]

    @property
    def is_reading_wanted(self) -> bool:
        """Whether uvicorn would read from the client at present."""
        return not self.flow.read_paused

    def on_reading_wanted(self) -> None:
        """uvicorn would read on, and `hold_reading` forbids it."""

    def hold_reading(self) -> None:
        """Read nothing from the client until `let_read`, whatever uvicorn wants."""
        self.flow.hold()

    def let_read(self) -> None:
        """Read from the client as soon as uvicorn wants to."""
        self.flow.let_go()

    def wake_app(self) -> None:
        """Let the ASGI app's `receive` return, with what has arrived."""
        if self.cycle is not None:
            self.cycle.message_event.set()

    def on_message_begin(self) -> None:
        """A request begins to arrive."""
        super().on_message_begin()
        self.scope[SCOPE_KEY] = self  # type: ignore[typeddict-unknown-key]

    def answer_here(self) -> None:
        """The present request is answered by `send_answer`, not by the ASGI app."""
        assert self.parser is not None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self._own_cycle = _OwnCycle(keep_alive)
        # It stays until a request behind this one on the connection has a cycle of its own.
        self.cycle = self._own_cycle  # type: ignore[assignment]

    def send_answer(self, data: bytes, close: bool = False) -> None:
        """Send the whole answer to a request of `answer_here`."""
        self._own_cycle.response_complete = True
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if close or not self._own_cycle.keep_alive:
            self.server_state.total_requests += 1
            self.transport.close()
        else:
            self.on_response_complete()

    def send_unparsed_answer(self, data: bytes) -> None:
        """Send the whole answer to a request that was not given to the parser."""
        self.transport.write(data)
        self.on_response_complete()


def fallback_options(connections: int, header_bytes: int) -> dict[str, Any]:
    """Public options of uvicorn.Config in place of an HttpConnection: at most so many connections,
    and so many bytes of headers."""
    return {
        "http": "h11",
        "limit_concurrency": connections,
        "h11_max_incomplete_event_size": header_bytes,
    }


class HttpServer(uvicorn.Server):
    """uvicorn on a socket that is bound already. It leaves signals to its caller.

    options      public options of uvicorn.Config
    fallback     the options to add where uvicorn lacks a private name, see `fallback_options`
    is_private   whether connections are HttpConnections
    """

    def __init__(self, options: Mapping[str, Any], fallback: Mapping[str, Any]) -> None:
        self.is_private = not missing_names()
        chosen = {**options, **({} if self.is_private else fallback)}
        super().__init__(uvicorn.Config(_no_app, **chosen))

    def set_app(self, app: ASGIApp, connection: Callable[[], type[HttpConnection]]) -> None:
        """Serve an app, before `serve`. `connection` makes the class of its connections."""
        self.config.app = app
        if self.is_private:
            self.config.http = connection()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: the caller hears signals."""
        yield

    def connections(self) -> list[HttpConnection] | None:
        """The open connections; None where uvicorn does not tell."""
        if not self.is_private:
            return None
        return [
            connection
            for connection in self.server_state.connections
            if isinstance(connection, HttpConnection)
        ]

    def stop_listening(self) -> None:
        """Accept no connection more; those that are open go on. Plain uvicorn does so when
        `should_exit` is set."""
        if self.is_private:
            for listener in self.servers:
                listener.close()


async def _no_app(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("the app is not set yet")
